"""From what stands in a column of labels to numbers and names of classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stopgrad.data.sources import UNLABELLED
from stopgrad.errors import DataError

LABEL_NAMES = ("label", "labels", "class", "classes", "target", "targets", "y", "category", "class_name")


def number_labels(
    values: Sequence[Any] | np.ndarray, names: Sequence[str] = (), *, where: str = "the labels"
) -> tuple[np.ndarray, list[str]]:
    """Labels as indices into names of classes.

    Args:
        values: one an image: whole numbers or texts; None, an empty text and (with `names`) a negative number say that
            an image has none. What is neither, such as a row of numbers each, is no label.
        names: the classes, where the values count them from 0; empty: the values are the classes, in their order.
        where: what to call the column in a message.

    Returns:
        int64 `[image]`, -1 where there is none, and the names; both empty where there are fewer than two classes.

    Raises:
        DataError: a value beyond the names.
    """
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        return _NONE, []
    if array.dtype == object or array.dtype.kind in "SU":
        return _numbered_texts(array.tolist())
    if array.dtype.kind not in "iu":
        return _NONE, []
    labels = array.astype(np.int64)
    if len(names):
        if labels.max(initial=UNLABELLED) >= len(names):
            raise DataError(f"{where}: {labels.max()} is beyond the {len(names)} names of classes, counted from 0.")
        labels = np.maximum(labels, UNLABELLED)
        return (labels, list(names)) if len(names) > 1 and labels.max(initial=-1) >= 0 else (_NONE, [])
    known, numbers = np.unique(labels[labels >= 0], return_inverse=True)
    if len(known) < 2:
        return _NONE, []
    labels[labels >= 0] = numbers
    return np.maximum(labels, UNLABELLED), [str(value) for value in known]


def renumber(labels: np.ndarray, names: Sequence[str], as_in: Sequence[str]) -> np.ndarray:
    """Labels numbered as in another list of classes; a class that it lacks becomes unlabelled."""
    if not len(labels) or list(names) == list(as_in):
        return labels
    place = {name: number for number, name in enumerate(as_in)}
    return np.array([place.get(name, UNLABELLED) for name in names] + [UNLABELLED], dtype=np.int64)[labels]


_NONE = np.empty(0, dtype=np.int64)


def _numbered_texts(values: list[Any]) -> tuple[np.ndarray, list[str]]:
    texts = [value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value for value in values]
    if all(text is None or (isinstance(text, int) and not isinstance(text, bool)) for text in texts):
        return number_labels(np.array([UNLABELLED if text is None else text for text in texts], dtype=np.int64))
    if any(text is not None and not isinstance(text, str) for text in texts):
        return _NONE, []
    known = list({text for text in texts if text})
    known.sort(key=int if all(text.isdecimal() for text in known) else None)
    if len(known) < 2:
        return _NONE, []
    place = {text: number for number, text in enumerate(known)}
    return np.array([place[text] if text else UNLABELLED for text in texts], dtype=np.int64), known
