"""Shards opened for reading: in place, or as a local copy that is made first."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stopgrad.caching import FileLock
from stopgrad.data.shards.copies import Copies
from stopgrad.data.shards.index import About, Entries, Shard
from stopgrad.data.shards.parquet import index_parquet, unpack
from stopgrad.data.shards.place import PARQUET
from stopgrad.data.shards.remote import GoneError, download, open_remote
from stopgrad.data.shards.tar import index_tar

CHANGED = "its shard has changed since the run began"


def local_shard(path: str) -> Shard:
    """A file as it is now.

    Raises:
        OSError: it is not there.
    """
    return Shard(os.path.abspath(path), *_state(os.stat(path)))


def is_copied(shard: Shard) -> bool:
    """Whether its images are read from a copy, as they cannot be in place."""
    return shard.remote or shard.suffix == PARQUET


def copy_bytes(shard: Shard, about: About) -> int:
    """Room that making the copy of a shard takes."""
    return (shard.size if shard.remote else 0) + about.unpacked_bytes


def open_copy(copies: Copies, shard: Shard, size: int, *, waits: bool = True) -> FileLock:
    """The copy of a shard that images are read from, made if need be.

    Args:
        copies: where copies are.
        shard: which shard.
        size: as `copy_bytes` has it.
        waits: for room, if there is none at the moment.

    Raises:
        OSError: it cannot be made.
    """
    if shard.suffix != PARQUET:
        return _whole(copies, shard, shard, waits=waits)

    def make(target: Path) -> None:
        if shard.remote:
            with _whole_parquet(copies, shard, waits=waits) as file:
                unpack(file, target)
        elif local_shard(shard.place) != shard:
            raise GoneError(CHANGED)
        else:
            unpack(shard.place, target)

    return copies.open(shard, size - (shard.size if shard.remote else 0), make, waits=waits)


def make_entries(copies: Copies, shard: Shard) -> Entries:
    """Find the images of a shard.

    Raises:
        OSError: it cannot be read.
    """
    if shard.suffix == PARQUET:
        return _index_parquet(copies, shard)
    if not shard.remote:
        with open(shard.place, "rb") as archive:
            return index_tar(archive)
    with _whole(copies, shard, shard) as lock, open(os.dup(lock.descriptor), "rb") as archive:
        return index_tar(archive)


def open_shard(copies: Copies, shard: Shard, size: int, images: np.ndarray) -> "OpenShard":
    """Open a shard for reading its images.

    Args:
        copies: where copies are.
        shard: which shard.
        size: as `copy_bytes` has it.
        images: what its index says of them.

    Raises:
        OSError: it is gone, has changed, or its copy cannot be made.
    """
    if is_copied(shard):
        lock = open_copy(copies, shard, size)
        return OpenShard(lock.descriptor, images, lock.close, is_unpacked=shard.suffix == PARQUET)
    descriptor = os.open(shard.place, os.O_RDONLY | os.O_CLOEXEC)
    return OpenShard(descriptor, images, partial(os.close, descriptor), shard=shard)


class OpenShard:
    """A shard that is open; closed when nothing reads from it any more."""

    def __init__(
        self, descriptor: int, images: np.ndarray, close: Callable[[], None], *, shard: Shard | None = None,
        is_unpacked: bool = False,
    ) -> None:  # fmt: skip
        self._descriptor, self._images, self._close, self._shard = descriptor, images, close, shard
        self.used = time.monotonic()
        """When it was last read from."""
        # Where the starts of the images stand, in a copy that is unpacked.
        self._table = os.fstat(descriptor).st_size - 8 * (len(images) + 1) if is_unpacked else None

    def read(self, row: int) -> bytes:
        """An image's bytes; raises `OSError` if the shard is another one by now."""
        self.used = time.monotonic()
        if self._shard is not None and _state(os.fstat(self._descriptor)) != (self._shard.size, self._shard.stamp):
            raise OSError(CHANGED)
        if self._table is not None:
            offset, end = np.frombuffer(os.pread(self._descriptor, 16, self._table + 8 * row), dtype=np.int64).tolist()
            size = end - offset
        else:
            image = self._images[row]
            offset, size = int(image["offset"]), int(image["size"])
        content = os.pread(self._descriptor, size, offset)
        if len(content) != size:
            raise OSError(f"{len(content):,} bytes are there of {size:,}")
        return content

    def __del__(self) -> None:
        self._close()


def _whole(copies: Copies, shard: Shard, known_as: Shard, *, waits: bool = True) -> FileLock:
    return copies.open(known_as, shard.size, lambda target: download(shard, target), waits=waits)


def _whole_parquet(copies: Copies, shard: Shard, *, waits: bool = True) -> BinaryIO:
    """A remote parquet file as it is, which another copy is unpacked from."""
    with _whole(copies, shard, replace(shard, stamp=f"{shard.stamp} whole"), waits=waits) as lock:
        return open(os.dup(lock.descriptor), "rb")


def _index_parquet(copies: Copies, shard: Shard) -> Entries:
    if not shard.remote:
        return index_parquet(shard.place)
    try:
        with open_remote(shard) as file:
            return index_parquet(file)
    except (OSError, ValueError, NotImplementedError):
        # Servers need not send parts of a file.
        with _whole_parquet(copies, shard) as file:
            return index_parquet(file)


def _state(stat: os.stat_result) -> tuple[int, str]:
    return stat.st_size, str(stat.st_mtime_ns)
