"""Local copies of shards, in a folder of bounded size that all processes of a machine share."""

import contextlib
import os
import re
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from stopgrad.caching import FileLock, try_lock
from stopgrad.data.shards.index import POLL_SECONDS, Shard, wait_lock

ROOM_SECONDS = 60.0
"""How long a copy waits for room that shards in use take."""
_COPY = re.compile(r"([0-9a-f]{24})\.shard")
# While a copy is made, its name says how much room is kept for it.
_PART = re.compile(r"([0-9a-f]{24})\.(\d+)\.[\d.]+\.part")


class Copies:
    """Copies of shards, the least recently used removed first, never one in use.

    Args:
        root: the folder, which exists.
        limit_gb: what all copies may take together.
    """

    def __init__(self, root: Path, limit_gb: float) -> None:
        self.root, self.limit_gb = root, limit_gb
        self._holders: list[weakref.WeakMethod[Callable[[], None]]] = []

    def ask_for_room(self, release: Callable[[], None]) -> None:
        """Register a method that closes one of its object's copies; called while this process waits for one.

        Without it, processes that all hold some and need others would wait for each other.
        """
        self._holders.append(weakref.WeakMethod(release))

    def has(self, shard: Shard) -> bool:
        """Whether there is a copy at this moment."""
        return self._path(shard).exists()

    def open(self, shard: Shard, size: int, make: Callable[[Path], None], *, waits: bool = True) -> FileLock:
        """The copy, open and locked against removal until the lock is closed.

        Args:
            shard: what it is a copy of.
            size: bytes of room that making it takes.
            make: makes it, if no process has.
            waits: for room, if there is none at the moment.

        Raises:
            OSError: it cannot be made, or there is no room.
        """
        path = self._path(shard)
        while True:
            held = _held(path)
            if held is not None:
                with contextlib.suppress(OSError):
                    os.utime(held.descriptor)
                return held
            with self._lock_of(shard):
                if path.exists():
                    continue
                part = self._reserve(shard, size, waits=waits)
                try:
                    make(part)
                    with open(part, "rb") as file:
                        os.fsync(file.fileno())
                    os.replace(part, path)
                finally:
                    part.unlink(missing_ok=True)

    def _path(self, shard: Shard) -> Path:
        return self.root / f"{shard.key}.shard"

    def _reserve(self, shard: Shard, size: int, *, waits: bool) -> Path:
        """An empty file whose name keeps room; copies that nothing uses are removed for it."""
        for left_over in self.root.glob(f"{shard.key}.*.part"):
            left_over.unlink(missing_ok=True)
        part = self.root / f"{shard.key}.{size}.{os.getpid()}.{threading.get_ident()}.part"
        until = time.monotonic() + ROOM_SECONDS
        while True:
            with wait_lock(self.root / "room.lock"):
                if self._make_room(size):
                    part.touch()
                    return part
            if size > self.limit_gb * 1e9:
                raise OSError(f"it takes {size / 1e9:.3g} GB, and shard_cache_gb = {self.limit_gb:g}")
            if not waits or time.monotonic() > until:
                raise OSError(
                    f"no room for {size / 1e9:.3g} GB in {self.root}: shards in use take the rest of shard_cache_gb = "
                    f"{self.limit_gb:g}, or the disk is full"
                )
            self._release_one()
            time.sleep(POLL_SECONDS)

    def _lock_of(self, shard: Shard) -> FileLock:
        """The lock under which a copy is made; the process that has it may be waiting for room that others hold."""
        while (lock := try_lock(self.root / f"{shard.key}.lock", create=True)) is None:
            self._release_one()
            time.sleep(POLL_SECONDS)
        return lock

    def _release_one(self) -> None:
        for holder in self._holders:
            if (release := holder()) is not None:
                release()

    def _make_room(self, size: int) -> bool:
        # First what is being made: what is finished in the meantime is then among the copies, and never in neither.
        making = {
            match[1]: int(match[2]) for file, match in self._named(_PART) if not self._is_left_over(file, match[1])
        }
        copies, made = [], set()
        for file, match in self._named(_COPY):
            # Another process may have removed it.
            with contextlib.suppress(FileNotFoundError):
                state = file.stat()
                copies.append((state.st_mtime_ns, state.st_size, file))
                made.add(match[1])
        used = sum(freed for _, freed, _ in copies) + sum(kept for key, kept in making.items() if key not in made)
        excess = max(used + size - self.limit_gb * 1e9, size - shutil.disk_usage(self.root).free)
        for _, freed, file in sorted(copies):
            if excess <= 0:
                break
            if _remove_unused(file):
                excess -= freed
        return excess <= 0

    def _named(self, pattern: re.Pattern[str]) -> Iterator[tuple[Path, re.Match[str]]]:
        for file in self.root.iterdir():
            if match := pattern.fullmatch(file.name):
                yield file, match

    def _is_left_over(self, part: Path, key: str) -> bool:
        """Remove what a process that was killed has left; whether it was that."""
        lock = try_lock(self.root / f"{key}.lock", create=True)
        if lock is None:
            return False
        with lock:
            part.unlink(missing_ok=True)
        return True


def _held(path: Path) -> FileLock | None:
    try:
        lock = try_lock(path, shared=True)
    except FileNotFoundError:
        return None
    # None: it is about to be removed. Or it was, between opening and locking.
    return lock if lock is not None and lock.is_on(path) else None


def _remove_unused(file: Path) -> bool:
    try:
        lock = try_lock(file)
    except OSError:
        return False
    if lock is None:
        return False
    with lock:
        file.unlink(missing_ok=True)
    return True
