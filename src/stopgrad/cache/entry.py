"""One data set's decoded images in a folder: written chunk by chunk, mapped into memory when it is used.

pixels      the readable images one after another, uint8 or uint16: each `[channels, height, width]` (layout "chw",
            where a sample of the images is all of one size) or `[height, width, channels]` (layout "hwc")
index.npy   int32 `[image, 2]`: height and width of every image of the source; 0, 0 where it is unreadable
meta.json   what it is of, checksums of all the rest, the unreadable images; there when the entry is complete
journal     while it is built: a line of JSON for every chunk that is in `pixels`
used        its modification time is that of the last use; a process that uses the entry holds a shared lock on it
"""

import contextlib
import json
import mmap
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from stopgrad.caching import FileLock, try_lock
from stopgrad.data.decode import evenly_spaced
from stopgrad.data.pixels import PixelFormat

FORMAT = 1
PIXELS, INDEX, META, JOURNAL, USED = "pixels", "index.npy", "meta.json", "journal", "used"
CHECKED_BYTES = 1e9
"""Of more pixels than these, a sample of the chunks is checked when an entry is opened."""
# Without it Linux refuses private maps of more than the memory there is. Python names it since 3.13.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class DamagedEntryError(Exception):
    """An entry that is not as it was written, or not of these images; the message says how."""


@dataclass(frozen=True)
class Unreadable:
    """An image that is not in the entry."""

    index: int
    reason: str
    transient: bool
    """Whether it could not be read at all, which may pass, rather than not decoded."""


@dataclass(frozen=True)
class CacheEntry:
    """A complete entry, mapped into memory; nobody removes it while this object lives."""

    folder: Path
    layout: str
    pixels_are: PixelFormat
    shapes: np.ndarray
    """int32 `[image, 2]`: height and width of every image of the source; 0 where unreadable."""
    unreadable: dict[int, Unreadable]
    pixels: np.ndarray
    """`[value]`, of the format's type."""
    lock: FileLock

    @property
    def stacked(self) -> Tensor | None:
        """`[readable image, channels, height, width]`, if they are all of one size."""
        sizes = self.shapes[self.shapes[:, 0] > 0]
        if self.layout != "chw" or not (sizes == sizes[0]).all():
            return None
        shape = (len(sizes), self.pixels_are.channels, int(sizes[0, 0]), int(sizes[0, 1]))
        return torch.from_numpy(self.pixels).view(shape)

    def rows(self, indices: Sequence[int]) -> np.ndarray:
        """int64 `[index]`: the places of readable images among all that are readable."""
        places: np.ndarray = np.cumsum(self.shapes[:, 0] > 0) - 1
        return places[np.asarray(indices, dtype=np.int64)]

    def images(self, indices: Sequence[int]) -> "CachedImages":
        """The images of the source at these indices, which are all readable."""
        starts = np.concatenate([[0], np.cumsum(num_values(self.shapes, self.pixels_are.channels))])
        return CachedImages(self, starts, np.asarray(indices, dtype=np.int64))


class CachedImages(Sequence[np.ndarray]):
    """`[height, width, channels]` each, as views of the mapped file."""

    def __init__(self, entry: CacheEntry, starts: np.ndarray, indices: np.ndarray) -> None:
        self.entry, self.starts, self.indices = entry, starts, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> np.ndarray:  # type: ignore[override]
        index = self.indices[position]
        height, width = self.entry.shapes[index].tolist()
        flat = self.entry.pixels[self.starts[index] : self.starts[index + 1]]
        channels = self.entry.pixels_are.channels
        if self.entry.layout == "chw":
            return flat.reshape(channels, height, width).transpose(1, 2, 0)
        return flat.reshape(height, width, channels)


def num_values(shapes: np.ndarray, channels: int) -> np.ndarray:
    """int64 `[image]`: how many numbers each is."""
    return channels * shapes.astype(np.int64).prod(axis=1)


def open_entry(folder: Path, key: str, pixels: PixelFormat) -> CacheEntry | None:
    """Open a complete entry; None if there is none (yet).

    Args:
        folder: the entry's.
        key: what it must be of.
        pixels: what its images are decoded to.

    Raises:
        DamagedEntryError: it is not as it was written, or of another key or format.
        OSError: it cannot be read or mapped.
    """
    try:
        lock = try_lock(folder / USED, shared=True)
    except FileNotFoundError:
        return None
    # Another process may have removed it first.
    if lock is None or not lock.is_on(folder / USED) or not (folder / META).exists():
        return None
    meta = _read_meta(folder / META, key)
    shapes = _read_index(folder / INDEX, meta)
    try:
        file = open(folder / PIXELS, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise DamagedEntryError(f"{PIXELS} cannot be read: {error.strerror}") from error
    with file:
        _check_pixels(file, meta["chunks"], int(num_values(shapes, pixels.channels).sum()) * pixels.depth // 8)
        # Private, so that torch may take it for writable while the file stays as it is.
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE)
    with contextlib.suppress(OSError):  # another user's, or read-only
        os.utime(folder / USED)
    unreadable = {index: Unreadable(index, reason, transient) for index, reason, transient in meta["unreadable"]}
    values = np.frombuffer(mapped, dtype=pixels.dtype)
    return CacheEntry(folder, meta["layout"], pixels, shapes, unreadable, values, lock)


def _read_meta(path: Path, key: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        content = document["content"]
        agrees = document["crc32"] == crc_of_json(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedEntryError(f"{META} cannot be read: {error}") from error
    if not agrees:
        raise DamagedEntryError(f"the checksum of {META} does not agree")
    if content["format"] != FORMAT:
        raise DamagedEntryError(f"it is of format {content['format']}, this program's is {FORMAT}")
    if content["key"] != key:
        raise DamagedEntryError("it is of other images")
    return dict(content)


def _check_pixels(file: BinaryIO, chunks: list[list[int]], num: int) -> None:
    """Raise `DamagedEntryError` unless there are `num` bytes and the checksums agree, of some chunks if of many."""
    size = os.fstat(file.fileno()).st_size
    starts = np.cumsum([0] + [chunk_size for chunk_size, _ in chunks]).tolist()
    if size != num or size != starts[-1]:
        raise DamagedEntryError(f"{PIXELS} has {size:,} bytes in place of {num:,}")
    for chunk in evenly_spaced(len(chunks), max(2, int(len(chunks) * min(1.0, CHECKED_BYTES / size)))):
        file.seek(starts[chunk])
        chunk_size, crc = chunks[chunk]
        try:
            agrees = zlib.crc32(file.read(chunk_size)) == crc
        except OSError as error:
            raise DamagedEntryError(f"{PIXELS} cannot be read: {error.strerror}") from error
        if not agrees:
            raise DamagedEntryError(f"the checksum of {PIXELS} does not agree")


def _read_index(path: Path, meta: dict[str, Any]) -> np.ndarray:
    try:
        shapes = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DamagedEntryError(f"{INDEX} cannot be read: {error}") from error
    if shapes.shape != (meta["num_images"], 2) or zlib.crc32(shapes.tobytes()) != meta["index_crc32"]:
        raise DamagedEntryError(f"the checksum of {INDEX} does not agree")
    return np.asarray(shapes)


def crc_of_json(content: Any) -> int:
    """A checksum that survives writing and reading."""
    return zlib.crc32(json.dumps(content).encode())
