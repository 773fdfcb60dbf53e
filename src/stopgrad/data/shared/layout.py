"""What names of files and folders say: which are images, which split and which class they belong to."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stopgrad.data.place import IMAGE_SUFFIXES
from stopgrad.data.shared.names import FileNames
from stopgrad.errors import DataError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")


@dataclass(frozen=True)
class Labelled:
    """Files with the classes that their folders are."""

    files: FileNames
    labels: np.ndarray
    """int64 `[file]`; empty where the folders are no classes."""
    class_names: Sequence[str]


def divide(root: str, inside: Mapping[str, str], below: Callable[[str], FileNames]) -> tuple[Labelled, Labelled | None]:
    """The training images of a tree of folders, and its test images where it has any.

    Args:
        root: the folder itself.
        inside: the folders in it, those hidden left out: name in small letters -> folder.
        below: the images at or below a folder.

    Raises:
        DataError: no training images.
    """
    train = next((inside[n] for n in TRAIN_NAMES if n in inside), None)
    test = next((inside[n] for n in TEST_NAMES if n in inside), None)
    # Beside other folders of images, `train` is a class, as in bus, car, train.
    if train is None or (test is None and any(f != train and len(below(f)) for f in inside.values())):
        return _by_own_folders(root, below(root)), None
    found = _by_own_folders(train, below(train))
    if test is None or not len(test_files := below(test)):
        return found, None
    own = _by_own_folders(test, test_files, list(found.class_names))
    return found, own


def _by_own_folders(root: str, files: FileNames, as_in: Sequence[str] | None = None) -> Labelled:
    """Labels by the first folder below the root; with `as_in`, numbered so, and -1 for a folder that is not in it."""
    if not len(files):
        raise DataError(
            f"{root!r} holds no images: looked in it and below for {', '.join(sorted(IMAGE_SUFFIXES))}.",
            topic="no-images",
        )
    parts = files.first_parts()
    used = [parts[folder] for folder in files.used_folders()]
    classes = sorted(set(used) - {""})
    nested = "" not in used and len(classes) > 1
    if as_in is None:
        as_in = classes if nested else []
    if not as_in:
        return Labelled(files, np.empty(0, dtype=np.int64), ())
    place = {name: number for number, name in enumerate(as_in)}
    labels = np.array([place.get(part, -1) for part in parts], dtype=np.int64)[files.folder_of]
    return Labelled(files, labels, as_in)


def step_into(folders: Sequence[str]) -> str:
    """The folder that alone holds all others, as in an archive of one folder: `photos` of photos/cat, photos/dog.

    Args:
        folders: the folders that hold images, relative to a root, with `os.sep`; the root itself an empty text.

    Returns:
        that folder; an empty text where there is none, or where it is itself a split.
    """
    top = ""
    while True:
        deeper = {folder[len(top) :].lstrip(os.sep).split(os.sep, 1)[0] for folder in folders}
        if len(deeper) != 1 or (only := deeper.pop()).lower() in ("", *TRAIN_NAMES, *TEST_NAMES):
            return top
        top = os.path.join(top, only)
