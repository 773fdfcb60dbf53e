"""Images decoded once and kept on disk, for later runs and for all processes of a run."""

import errno
import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL

import stopgrad.caching as caching
from stopgrad.cache.build import EntryWriter, decode_all, images_done
from stopgrad.cache.entry import JOURNAL, META, CacheEntry, DamagedEntryError, open_entry
from stopgrad.cache.eviction import NoRoomError, lock_path, make_room, remove_entry
from stopgrad.caching import AUTO, OFF, FileLock, cache_root, try_lock
from stopgrad.data.decode import VERSION as DECODER_VERSION
from stopgrad.data.decode import Progress, evenly_spaced, read_image
from stopgrad.data.pixels import RGB8, PixelFormat, UnreadableImageError
from stopgrad.data.sources import ImageSource
from stopgrad.distributed.rank import current_rank
from stopgrad.errors import ConfigError

SMALL_BYTES = 64e6
"""Fewer are decoded in a moment and held in memory, unless a folder was asked for."""
CHUNK_BYTES, CHUNK_IMAGES = 8e6, 1024
HEAD_START_SECONDS = 0.5
"""Of several processes of a run, the first, which alone can speak, is to come first."""
Tell = Callable[[str], None]


class ImageCache:
    """A folder of entries, each a data set decoded; or none, where it cannot be used.

    Args:
        setting: "auto": `$STOPGRAD_CACHE` (a folder, or "off"), else the user's cache folder; "off"; or a folder.
        limit_gb: what all entries may take together.
        say: told of what is good to know.
        warn: told why the cache is not used where it should be; each reason once.

    Raises:
        ConfigError: a folder was asked for and cannot be used.
    """

    def __init__(self, setting: str, limit_gb: float, *, say: Tell, warn: Tell) -> None:
        self.explicit = setting not in (AUTO, OFF)
        self.limit = limit_gb * 1e9
        self._say, self._warn = say, warn
        self._told: set[str] = set()
        self.root = cache_root(setting)
        if self.root is None:
            return
        if not caching.AVAILABLE:
            self._give_up(f"{sys.platform} has no locks on files by which several runs could share it")
        elif self.root.exists() and not self.root.is_dir():
            self._give_up("it is not a folder")

    def open(
        self, source: ImageSource, *, shortest: int, workers: int = 0, strict: bool = False,
        progress: Progress | None = None, pixels: PixelFormat = RGB8,
    ) -> CacheEntry | None:  # fmt: skip
        """The entry of a source, built if need be; None where the cache cannot be used, which is said.

        Sources without `cache_key` have no entry, and neither have small ones unless a folder was asked for.

        Args:
            source: the images.
            shortest: images with a longer shorter side are reduced to it.
            workers: decoding threads; 0: one per core.
            strict: refuse unreadable images while building.
            progress: told of building, and of another run's building that this one waits for.
            pixels: what images are decoded to.

        Raises:
            DataError: an unreadable image where `strict` is set; what was decoded so far is kept.
            ConfigError: a folder was asked for and cannot be written.
        """
        if self.root is None:
            return None
        key = entry_key(source, shortest, pixels)
        if key is None:
            if self.explicit:
                self._warn_once("cache has no effect: the images are in memory, or of a source without cache_key.")
            return None
        folder = self.root / key
        try:
            entry = self._existing(folder, source, pixels)
            if entry is not None:
                return entry
            sample = _sample(source, shortest, pixels)
            if not sample or (not self.explicit and _estimate(sample, source) < SMALL_BYTES):
                return None
            if not current_rank().leads:
                time.sleep(HEAD_START_SECONDS)
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock(folder, len(source), progress):
                return self._existing(folder, source, pixels) or self._build(
                    folder, source, sample, shortest=shortest, workers=workers or os.cpu_count() or 1, strict=strict,
                    progress=progress, pixels=pixels,
                )  # fmt: skip
        except NoRoomError as error:
            self._warn_once(f"the decoded images are not kept in the cache {self.root}: {error}. {_WITHOUT}")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._warn_once(
                    f"the decoded images are not kept in the cache {self.root}: {_reason(error)}. {_WITHOUT}"
                )
            else:
                self._give_up(_reason(error))
        return None

    def _existing(self, folder: Path, source: ImageSource, pixels: PixelFormat) -> CacheEntry | None:
        """The entry if it is there and sound; a damaged one is told of."""
        try:
            entry = open_entry(folder, folder.name, pixels)
        except DamagedEntryError as error:
            self._warn_once(f"the cache in {folder} is damaged ({error}): decoding again.")
            return None
        if entry is not None and (num := _readable_now(entry, source)):
            self._warn_once(
                f"{num} image{'s' if num > 1 else ''} can be read now that could not when the cache in {folder} was "
                "made: decoding again."
            )
            return None
        return entry

    def _lock(self, folder: Path, total: int, progress: Progress | None) -> FileLock:
        """The builder's lock; waits until another process releases it."""
        path = lock_path(folder)
        waits = False
        while (lock := try_lock(path, create=True)) is None:
            # Of the processes of one run some wait always; they see how far the one has come.
            if not waits and current_rank().world == 1:
                self._say(f"Cache     waiting for another run that is decoding these images into {folder}")
            waits = True
            time.sleep(0.2)
            if progress is not None and (done := images_done(folder)):
                progress(done, total)
        return lock

    def _build(
        self, folder: Path, source: ImageSource, sample: list[np.ndarray], *, shortest: int, workers: int,
        strict: bool, progress: Progress | None, pixels: PixelFormat,
    ) -> CacheEntry | None:  # fmt: skip
        """Decode a source, or the rest of it; None if no image can be read."""
        assert self.root is not None
        if (folder / META).exists() or not (folder / JOURNAL).exists():
            remove_entry(folder)
        even = len({image.shape for image in sample}) == 1
        # Where sizes vary, the sample is taken to be right to a tenth.
        needed = _estimate(sample, source) * (1.0 if even else 1.1)
        room, removed = make_room(self.root, needed, self.limit, folder)
        if removed:
            self._say(f"Cache     removed {len(removed)} data sets, the least recently used, from {self.root}")
        try:
            with EntryWriter(folder, folder.name, len(source), "chw" if even else "hwc", pixels) as writer:
                size = max(1, min(CHUNK_IMAGES, int(CHUNK_BYTES * len(source) / _estimate(sample, source))))
                decode_all(
                    writer, source, shortest=shortest, chunk_images=size, workers=workers, strict=strict, room=room,
                    progress=progress,
                )  # fmt: skip
                if not writer.size:
                    remove_entry(folder)
                    return None
                writer.finish({"images": f"{source.name(0)} and {len(source) - 1} more", "shortest": shortest})
        except OSError as error:
            remove_entry(folder)
            raise NoRoomError(f"writing failed: {_reason(error)}") from error
        except NoRoomError:
            remove_entry(folder)
            raise
        return open_entry(folder, folder.name, pixels)

    def _give_up(self, reason: str) -> None:
        if self.explicit:
            raise ConfigError(
                f"cache = {str(self.root)!r} cannot be used: {reason}. Give a folder that can be written, 'auto' "
                "or 'off'.",
                topic="disk-full",
            )
        self._warn_once(f"the cache {self.root} cannot be used: {reason}. {_WITHOUT}")
        self.root = None

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._warn(text)


_WITHOUT = "Continuing without it; cache = a folder places it elsewhere, cache = 'off' does without."


def entry_key(source: ImageSource, shortest: int, pixels: PixelFormat = RGB8) -> str | None:
    """What tells a source's decoded images from all others; None for a source that cannot say.

    Besides what the source says of its files, the contents of some: sizes and times alone may agree by chance, as
    they do for uncompressed images out of an archive.
    """
    own = getattr(source, "cache_key", None)
    listing = own() if own is not None else None
    if listing is None:
        return None
    digest = hashlib.sha256(f"{listing};{len(source)};{shortest};{DECODER_VERSION};{PIL.__version__}".encode())
    if pixels != RGB8:
        digest.update(repr(pixels).encode())
    for index in evenly_spaced(len(source), 32):
        try:
            data = source.read(index)
        except OSError:
            data = b""
        digest.update(data if isinstance(data, bytes) else np.asarray(data).tobytes())
    return digest.hexdigest()[:24]


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _estimate(sample: list[np.ndarray], source: ImageSource) -> float:
    """Bytes of all images decoded, judging by some."""
    return float(np.mean([image.nbytes for image in sample])) * len(source)


def _sample(source: ImageSource, shortest: int, pixels: PixelFormat) -> list[np.ndarray]:
    sample = []
    for index in evenly_spaced(len(source), 16):
        try:
            sample.append(read_image(source, index, shortest, pixels))
        except UnreadableImageError:
            continue
    return sample


def _readable_now(entry: CacheEntry, source: ImageSource) -> int:
    """How many of the images that could not be read when the entry was made can be read now."""
    num = 0
    for index in (u.index for u in entry.unreadable.values() if u.transient):
        try:
            source.read(index)
            num += 1
        except OSError:
            continue
    return num
