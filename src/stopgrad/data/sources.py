"""Where images come from: one small protocol, and sources that are in memory.

To add a kind: a class with the members of `ImageSource` in a file of `data/kinds/`, a line in `KINDS` (`data/open.py`).
"""

import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stopgrad.data.shards.order import Layout, layout_of
from stopgrad.data.shared.names import FileNames

UNLABELLED = -1


@runtime_checkable
class ImageSource(Protocol):
    """Images in a fixed order.

    A source may have two members more. `cache_key() -> str | None`: a text that is another one whenever the images are
    (such as the paths, sizes and times of their files). Images of a source with a key are decoded once and cached.
    `labels_of(indices)`: the labels of some images at once. Large sets have two more: `layout()`, if they are to be
    read part by part, and `damaged`.
    """

    class_names: Sequence[str]
    """Names of the classes; empty where there are no labels."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Any:
        """The encoded file, a Pillow image, or pixels `[height, width]` or `[height, width, channel]`, of any numbers.

        Raises:
            OSError: it cannot be read; it is named, counted and skipped.
        """
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


class LabelledSource(ABC):
    """Base of sources that know their labels from the beginning; `read` and `name` are to be added too."""

    def __init__(self, labels: Sequence[int] | np.ndarray = (), class_names: Sequence[str] = ()) -> None:
        self.labels, self.class_names = labels, class_names
        """A number an image, -1 where it has none; or none at all."""

    @abstractmethod
    def __len__(self) -> int: ...

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        return int(self.labels[index]) if len(self.labels) else UNLABELLED

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """int64 `[image]`."""
        return np.asarray(self.labels)[indices] if len(self.labels) else np.full(len(indices), UNLABELLED)


def labels_of(source: ImageSource, indices: np.ndarray) -> np.ndarray:
    """Labels of some images of a source, int64 `[image]`; -1 where there is none."""
    if hasattr(source, "labels_of"):
        return np.asarray(source.labels_of(indices), dtype=np.int64)
    return np.array([source.label(index) for index in indices.tolist()], dtype=np.int64)


def all_labels(source: ImageSource) -> np.ndarray:
    """Labels of all images of a source, int64 `[image]`; -1 where there is none."""
    return labels_of(source, np.arange(len(source)))


class ArraySource(LabelledSource):
    """Images that are in memory already."""

    def __init__(self, images: np.ndarray, labels: Sequence[int] = (), class_names: Sequence[str] = (),
                 name: str = "image") -> None:  # fmt: skip
        super().__init__(labels, class_names)
        self.images, self._name = images, name

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> np.ndarray:
        """Pixels."""
        return np.asarray(self.images[index])

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

    def read(self, index: int) -> Any:
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


def damaged_of(source: ImageSource) -> Mapping[str, str]:
    """Files that hold less than they should, such as a truncated shard -> what is wrong with each."""
    damaged: Mapping[str, str] = getattr(source, "damaged", {})
    return damaged


def files_key(paths: Sequence[str | Path]) -> str:
    """A digest of the files' paths, sizes and times."""
    digest = hashlib.sha256()
    for text in _states_of(paths):
        digest.update(text)
    return digest.hexdigest()


_TRIED, _THREADS = 1000, 32
# A disk in the machine answers in microseconds, one in the network in hundreds of them.
_SLOW_SECONDS = 50e-6


def _states_of(paths: Sequence[str | Path]) -> Iterator[bytes]:
    """Path, size and time of a thousand files at once; asked for in threads where the first take long."""
    starts = range(0, len(paths), _TRIED)
    began = time.perf_counter()
    for start in starts[:1]:
        yield _states(paths, start)
    if time.perf_counter() - began < _SLOW_SECONDS * _TRIED:
        yield from (_states(paths, start) for start in starts[1:])
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(lambda start: _states(paths, start), starts[1:])


def _states(paths: Sequence[str | Path], start: int) -> bytes:
    stop = min(start + _TRIED, len(paths))
    if isinstance(paths, FileNames):
        absolute = paths.absolute(start, stop)
    else:
        absolute = [os.fsencode(os.path.abspath(paths[index])) for index in range(start, stop)]
    return b"".join([b"%b\0%b\n" % (path, _state(path)) for path in absolute])


def _state(path: bytes) -> bytes:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return b"not there"
    return b"%d %d" % (stat.st_size, stat.st_mtime_ns)
