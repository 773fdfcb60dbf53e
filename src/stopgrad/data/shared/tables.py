"""Files of named arrays: which of them are the images and labels of which split, and how an array holds images."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stopgrad.data.pixels import MOST_CHANNELS
from stopgrad.data.shared.labels import number_labels, renumber
from stopgrad.data.shared.layout import TEST_NAMES, TRAIN_NAMES
from stopgrad.data.sources import LabelledSource, Splits
from stopgrad.errors import DataError

IMAGE_NAMES = ("images", "image", "x", "data", "imgs", "img", "pixels")
LABEL_NAMES = ("labels", "label", "y", "targets", "target")
CLASS_NAMES = ("class_names", "label_names", "classes")
MOST_BYTES = 10**9
"""Of one image."""
NEEDED = (
    "needs whole numbers or floats of shape [image, height, width], [image, height, width, channel] or [image, "
    f"channel, height, width], with at most {MOST_CHANNELS} channels"
)


@dataclass(frozen=True)
class Column:
    """An array of a file, known by its header."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    values: Callable[[], np.ndarray]
    """All of it."""
    is_encoded: bool = False
    """Whether it is a list of encoded images."""

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class TableSource(LabelledSource):
    """Images that are the rows of an array in a file."""

    def __init__(
        self, num: int, row: Callable[[int], Any], *, where: str, key: str, channels_first: bool = False,
        labels: np.ndarray, class_names: Sequence[str],
    ) -> None:  # fmt: skip
        super().__init__(labels, class_names)
        self._num, self._row, self._where, self._key, self._channels_first = num, row, where, key, channels_first

    def __len__(self) -> int:
        return self._num

    def read(self, index: int) -> "bytes | np.ndarray":
        """The encoded image, or its pixels `[height, width]` or `[height, width, channel]`.

        Raises:
            OSError: it cannot be read from the file.
        """
        row = self._row(index)
        if isinstance(row, bytes):
            return row
        return as_pixels(np.asarray(row), channels_first=self._channels_first)

    def name(self, index: int) -> str:
        """File, array and row."""
        return f"{self._where} row {index}"

    def cache_key(self) -> str:
        """Path, size and time of the file, and the array."""
        return self._key


def as_pixels(row: np.ndarray, *, channels_first: bool = False) -> np.ndarray:
    """One image with its channels last, in memory of its own and in the machine's byte order."""
    if channels_first:
        row = np.moveaxis(row, 0, -1)
    return np.array(row, dtype=row.dtype.newbyteorder("="), order="C")


def channels_are_first(shape: Sequence[int], dtype: np.dtype[Any], where: str) -> bool:
    """Check that an array holds images, and say whether it is `[image, channel, height, width]`.

    Of four sides the second is the channels where it is at most 16 and smaller than the two after it, else the last.

    Raises:
        DataError: it holds no images.
    """
    what = f"{where} is of type {dtype} and shape {list(shape)}"
    if dtype.kind not in "buif":
        raise DataError(f"{what}: {NEEDED}.")
    if looks_like_one(shape):
        raise DataError(f"{what}, as one image has: {NEEDED}. A folder of such files is a data set too.")
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise DataError(f"{what}: {NEEDED}.")
    if dtype.itemsize * int(np.prod([int(side) for side in shape[1:]], dtype=object)) > MOST_BYTES:
        raise DataError(f"{what}: one image would take more than {MOST_BYTES / 1e9:g} GB.")
    if len(shape) == 3:
        return False
    first = shape[1] <= MOST_CHANNELS and shape[1] < min(shape[2:])
    if not first and shape[3] > MOST_CHANNELS:
        raise DataError(f"{what}: {NEEDED}.")
    return first


def looks_like_one(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is one image rather than several."""
    if len(shape) == 3 and shape[2] <= MOST_CHANNELS:
        return shape[1] > MOST_CHANNELS and (shape[2] in (1, 3, 4) or shape[0] > MOST_CHANNELS)
    return len(shape) == 2


Open = Callable[[str, np.ndarray, Sequence[str]], "TableSource"]
"""From the name of the array of images, the labels and the names of classes to a source."""


def open_table(columns: Mapping[str, Column], name: str, where: str, open_source: Open) -> Splits:
    """The splits of a file of named arrays.

    A name may say what an array is, such as images or x, labels or y, and the split, such as train or val:
    `x_train`, `train_images`, `test/labels`. Without such names, the only array that can hold images does.

    Raises:
        DataError: no images, or several arrays that could be; labels that do not go with them.
    """
    found = _by_role(columns, where)
    class_names = _class_names(columns)

    def opened(split: str | None, as_in: Sequence[str] | None = None) -> TableSource:
        images = found[split, True]
        given = found.get((split, False))
        labels, names = np.empty(0, dtype=np.int64), list[str]()
        if given is not None and len(columns[given].shape) in (1, 2):
            if columns[given].shape[0] != columns[images].shape[0]:
                raise DataError(
                    f"{where}: {columns[given].shape[0]} labels in {given!r} for {columns[images].shape[0]} images in "
                    f"{images!r}."
                )
            labels, names = number_labels(columns[given].values(), class_names, where=f"{where}, {given!r}")
        if as_in is not None:
            labels, names = renumber(labels, names, as_in), list(as_in)
        return open_source(images, labels, names)

    train = next((split for split in TRAIN_NAMES if (split, True) in found), None)
    if train is None:
        if (None, True) not in found:
            raise DataError(
                f"{where}: none of its arrays is named as training images: {_list(columns)}. Name one 'images'."
            )
        return Splits(name, opened(None))
    test = next((split for split in TEST_NAMES if (split, True) in found), None)
    source = opened(train)
    return Splits(name, source, None if test is None else opened(test, source.class_names))


def _by_role(columns: Mapping[str, Column], where: str) -> dict[tuple[str | None, bool], str]:
    """(split or None, whether it holds images) -> the array's name."""
    could_hold = [name for name, column in columns.items() if len(column.shape) >= 3 or column.is_encoded]
    if not could_hold:
        raise DataError(f"{where} holds no images: {NEEDED}; it has {_list(columns) or 'no arrays'}.")
    found: dict[tuple[str | None, bool], str] = {}
    ranks: dict[tuple[str | None, bool], int] = {}
    for name, column in columns.items():
        words = re.split(r"[^a-z0-9]+", name.lower())
        split = next((word for word in words if word in (*TRAIN_NAMES, *TEST_NAMES)), None)
        for is_image, names in ((True, IMAGE_NAMES), (False, LABEL_NAMES)):
            rank = min((names.index(word) for word in words if word in names), default=None)
            if rank is None or (name in could_hold) != is_image or column.dtype.kind not in "buifSUO":
                continue
            if rank < ranks.get((split, is_image), len(names)):
                ranks[split, is_image], found[split, is_image] = rank, name
    if not any(is_image for _, is_image in found) and len(could_hold) == 1:
        found[None, True] = could_hold[0]
    return found


def _class_names(columns: Mapping[str, Column]) -> list[str]:
    for name in CLASS_NAMES:
        if name in columns and len(columns[name].shape) == 1 and columns[name].dtype.kind in "SUO":
            texts = columns[name].values().tolist()
            return [t.decode("utf-8", "backslashreplace") if isinstance(t, bytes) else str(t) for t in texts]
    return []


def _list(columns: Mapping[str, Column]) -> str:
    shown = [f"{name!r}: {column}" for name, column in list(columns.items())[:8]]
    return ", ".join(shown) + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
