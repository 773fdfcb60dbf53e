"""Where images come from: one small protocol, and sources that are in memory.

To add a kind: a class with the members of `ImageSource` in a file of `data/kinds/`, a line in `KINDS` (`data/open.py`).
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stopgrad.data.shards.order import Layout, layout_of

UNLABELLED = -1


@runtime_checkable
class ImageSource(Protocol):
    """Images in a fixed order.

    A source may have one member more, `cache_key() -> str | None`: a text that is another one whenever the images are
    (such as the paths, sizes and times of their files). Images of a source with a key are decoded once and cached.
    Large sets have three more: `layout()`, if they are to be read part by part, `labels_of(indices)`, and `damaged`.
    """

    class_names: Sequence[str]
    """Names of the classes; empty where there are no labels."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> "bytes | np.ndarray":
        """The encoded file, or decoded uint8 pixels `[height, width]` or `[height, width, 3]`."""
        ...

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        ...

    def name(self, index: int) -> str:
        """What to call the image in a message: its path, or its row."""
        ...


@dataclass(frozen=True)
class Splits:
    """The training images of a data set, and its test images where it has any."""

    name: str
    train: ImageSource
    test: ImageSource | None = None


class ArraySource:
    """Images that are in memory already."""

    def __init__(self, images: np.ndarray, labels: Sequence[int] = (), class_names: Sequence[str] = (),
                 name: str = "image") -> None:  # fmt: skip
        self.images, self.labels, self.class_names, self._name = images, labels, class_names, name

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> np.ndarray:
        """Pixels, uint8."""
        return np.asarray(self.images[index])

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        return int(self.labels[index]) if len(self.labels) else UNLABELLED

    def name(self, index: int) -> str:
        """Its place in the array."""
        return f"{self._name} {index}"


class ListSource:
    """Pillow images, encoded files or uint8 arrays of any size, in a sequence."""

    class_names: Sequence[str] = ()

    def __init__(self, images: Sequence[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Any:
        """As it stands in the sequence."""
        return self.images[index]

    def label(self, index: int) -> int:
        """None."""
        return UNLABELLED

    def name(self, index: int) -> str:
        """Its place in the sequence."""
        return f"image {index}"


class Subset:
    """Some images of another source, in the order given."""

    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        self.source, self.indices, self.class_names = source, indices, source.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> "bytes | np.ndarray":
        """As the source has it."""
        return self.source.read(int(self.indices[index]))

    def label(self, index: int) -> int:
        """As the source has it."""
        return self.source.label(int(self.indices[index]))

    def name(self, index: int) -> str:
        """As the source has it."""
        return self.source.name(int(self.indices[index]))

    @property
    def damaged(self) -> Mapping[str, str]:
        """As the source has it."""
        return damaged_of(self.source)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """As the source has them."""
        return labels_of(self.source, np.asarray(self.indices)[indices])

    def layout(self) -> Layout | None:
        """The part of the source's layout that a range has; other parts are read in any order."""
        layout = layout_of(self.source)
        return layout.part(self.indices) if layout is not None and isinstance(self.indices, range) else None


def labels_of(source: ImageSource, indices: np.ndarray) -> np.ndarray:
    """Labels of some images of a source, int64 `[image]`; -1 where there is none."""
    if hasattr(source, "labels_of"):
        return np.asarray(source.labels_of(indices), dtype=np.int64)
    return np.array([source.label(index) for index in indices.tolist()], dtype=np.int64)


def damaged_of(source: ImageSource) -> Mapping[str, str]:
    """Files that hold less than they should, such as a truncated shard -> what is wrong with each."""
    damaged: Mapping[str, str] = getattr(source, "damaged", {})
    return damaged


def files_key(paths: Sequence[Path]) -> str:
    """A digest of the files' paths, sizes and times."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = os.stat(path)
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            state = "not there"
        digest.update(os.fsencode(os.path.abspath(path)) + f"\0{state}\n".encode())
    return digest.hexdigest()
