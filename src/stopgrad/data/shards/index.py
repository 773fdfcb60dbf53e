"""What is known of a shard's images: place, size, label and name of each, in files that are mapped into memory."""

import hashlib
import json
import os
import shutil
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.caching import FileLock, try_lock
from stopgrad.data.shards.place import is_remote, shown, suffix_of, without_query
from stopgrad.data.sources import UNLABELLED

FORMAT = 1
"""Goes up when an index is made otherwise: shards are then indexed anew."""
IMAGES, NAMES, ABOUT = "images.npy", "names.npy", "about.json"
IMAGE = np.dtype([("offset", "<i8"), ("size", "<i8"), ("name_end", "<i8"), ("label", "<i4")])
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Shard:
    """A shard as it was found: another one as soon as its content may be."""

    place: str
    """Path or address."""
    size: int
    stamp: str
    """Time of the last change or ETag."""

    @property
    def remote(self) -> bool:
        """Whether it is somewhere else."""
        return is_remote(self.place)

    @property
    def suffix(self) -> str:
        """`.tar` or `.parquet`."""
        return suffix_of(self.place)

    @property
    def name(self) -> str:
        """What to call it."""
        return shown(self.place)

    @property
    def key(self) -> str:
        """A digest of all that is known of it."""
        text = f"{FORMAT}\0{without_query(self.place)}\0{self.size}\0{self.stamp}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()[:24]


@dataclass
class Entries:
    """The images of a shard while it is indexed: numbers in flat arrays, so that a million take little memory."""

    # Of type `array`, which takes no parameter before Python 3.12.
    offsets: Any = field(default_factory=lambda: array("q"))
    sizes: Any = field(default_factory=lambda: array("q"))
    labels: Any = field(default_factory=lambda: array("i"))
    name_ends: Any = field(default_factory=lambda: array("q"))
    names: bytearray = field(default_factory=bytearray)
    classes: dict[str, int] = field(default_factory=dict)
    """Name of a class -> its number in this shard."""
    is_named: bool = False
    """Whether the shard itself says what classes there are, and in which order."""
    problem: str = ""
    """What of the shard cannot be used, in words."""
    unpacked_bytes: int = 0
    """How large its copy is, where it is read from one that is unpacked."""

    def add(self, offset: int, size: int, label: str | None, name: str) -> None:
        """One image more."""
        self.offsets.append(offset)
        self.sizes.append(size)
        self.names += name.encode("utf-8", "surrogateescape")
        self.name_ends.append(len(self.names))
        self.labels.append(-1 if label is None else self.classes.setdefault(label, len(self.classes)))

    def write(self, folder: Path) -> None:
        """Write the files of an index into a folder."""
        images = np.empty(len(self.offsets), dtype=IMAGE)
        columns = (("offset", self.offsets), ("size", self.sizes), ("name_end", self.name_ends), ("label", self.labels))
        for column, values in columns:
            images[column] = values
        np.save(folder / IMAGES, images)
        np.save(folder / NAMES, np.frombuffer(bytes(self.names), dtype=np.uint8))
        about = {
            "num_images": len(images), "classes": list(self.classes), "is_named": self.is_named,
            "problem": self.problem, "unpacked_bytes": self.unpacked_bytes,
        }  # fmt: skip
        (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


@dataclass(frozen=True)
class About:
    """What an index says of its shard as a whole."""

    num_images: int
    classes: Sequence[str]
    is_named: bool
    problem: str
    unpacked_bytes: int


class ShardIndex:
    """The images of a shard; nothing is read but what is asked for.

    Args:
        folder: where the index is.
        class_numbers: name of a class -> its number in the whole set.

    Raises:
        OSError: its files are gone or damaged.
    """

    def __init__(self, folder: Path, class_numbers: Mapping[str, int]) -> None:
        about = _read_about(folder)
        classes = about.classes if about is not None else ()
        # The last is for images without a label, whose own number is -1.
        numbers = [*(class_numbers.get(name, UNLABELLED) for name in classes), UNLABELLED]
        self._numbers = np.array(numbers, dtype=np.int64)
        self.images = _array_in(folder / IMAGES, IMAGE)
        self._names = _array_in(folder / NAMES, np.dtype(np.uint8))

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Labels of images as numbers in the whole set, int64 `[image]`; -1 where there is none."""
        return self._numbers[self.images["label"][rows]]

    def name(self, row: int) -> str:
        """Name of an image in the archive; empty where images have none."""
        start = int(self.images["name_end"][row - 1]) if row else 0
        return bytes(self._names[start : int(self.images["name_end"][row])]).decode("utf-8", "surrogateescape")


def index_folder(root: Path, shard: Shard) -> Path:
    """Where the index of a shard is kept."""
    return root / f"{shard.key}.index"


def ensure_index(root: Path, shard: Shard, make: Callable[[Shard], Entries]) -> About:
    """What the index of a shard says, made if need be; of several processes one makes it.

    Raises:
        OSError: the shard cannot be read or the index not be written.
    """
    folder = index_folder(root, shard)
    about = _read_about(folder)
    if about is not None:
        return about
    with wait_lock(root / f"{shard.key}.index.lock"):
        about = _read_about(folder)
        if about is None:
            shutil.rmtree(folder, ignore_errors=True)
            # A process that was killed may have left one.
            temporary = root / f"{shard.key}.index.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                make(shard).write(temporary)
                os.replace(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            about = _read_about(folder)
    assert about is not None
    return about


def _array_in(file: Path, dtype: np.dtype[Any]) -> np.ndarray:
    # An empty file cannot be mapped.
    mapped = os.path.getsize(file) > 128
    try:
        array: np.ndarray = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
    # Damaged headers raise almost anything: ValueError, EOFError, TokenError, ...
    except Exception as error:
        raise OSError(f"{file} is damaged ({error}): remove {file.parent}, and it is made again") from error
    if array.dtype != dtype or array.ndim != 1:
        raise OSError(f"{file} is damaged: remove {file.parent}, and it is made again")
    return array


def wait_lock(path: Path) -> FileLock:
    """The lock of a file, once no other process or thread has it."""
    while (lock := try_lock(path, create=True)) is None:
        time.sleep(POLL_SECONDS)
    return lock


def _read_about(folder: Path) -> About | None:
    try:
        found: dict[str, Any] = json.loads((folder / ABOUT).read_bytes())
        if (folder / IMAGES).stat().st_size < found["num_images"] * IMAGE.itemsize:
            return None
        return About(**found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
