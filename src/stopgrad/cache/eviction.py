"""Room for another entry in the cache: least recently used entries are evicted first, never one in use."""

import contextlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from stopgrad.cache.entry import META, USED
from stopgrad.caching import FileLock, try_lock

ENTRY_NAME = re.compile(r"[0-9a-f]{24}")
MARGIN_BYTES = 4e9
"""Of the disk, so much or a tenth, whichever is less, stays free."""


class NoRoomError(Exception):
    """There is no room for the images; the message says how much they need and what there is."""


@dataclass(frozen=True)
class _Tenant:
    folder: Path
    size: int
    used: float


def make_room(root: Path, needed: float, limit: float, keep: Path) -> tuple[float, list[Path]]:
    """See to it that an entry can be built, removing entries that were not used for longest if need be.

    Args:
        root: the cache.
        needed: bytes the entry will take.
        limit: bytes that all entries may take together.
        keep: the entry itself, which may have begun; it counts neither as taken nor as free.

    Returns:
        How many bytes it may come to take, and the entries that were removed.

    Raises:
        NoRoomError: not even without the entries that nobody uses; none is removed.
    """
    if needed > limit:
        raise NoRoomError(f"they need {needed / 1e9:.3g} GB, and cache_gb = {limit / 1e9:g}")
    disk = shutil.disk_usage(root)
    begun = _size(keep)
    room_on_disk = disk.free + begun - min(MARGIN_BYTES, 0.1 * disk.total)
    others = [t for t in _tenants(root) if t.folder != keep]
    room_in_limit = limit - sum(t.size for t in others)
    taken: list[tuple[_Tenant, list[FileLock]]] = []
    try:
        for tenant in sorted(others, key=lambda t: t.used):
            if needed <= min(room_on_disk, room_in_limit):
                break
            locks = _lock_alone(tenant.folder)
            if locks is not None:
                taken.append((tenant, locks))
                room_on_disk += tenant.size
                room_in_limit += tenant.size
        if needed > room_in_limit:
            raise NoRoomError(
                f"they need {needed / 1e9:.3g} GB, and of cache_gb = {limit / 1e9:g} only "
                f"{max(room_in_limit, 0) / 1e9:.3g} are not in use"
            )
        if needed > room_on_disk:
            raise NoRoomError(
                f"they need {needed / 1e9:.3g} GB, and {disk.free / 1e9:.3g} GB of the disk are free, of which "
                f"{min(MARGIN_BYTES, 0.1 * disk.total) / 1e9:.3g} are left alone"
            )
        for tenant, _ in taken:
            remove_entry(tenant.folder)
    finally:
        for _, locks in taken:
            for lock in locks:
                lock.close()
    return min(room_on_disk, room_in_limit), [tenant.folder for tenant, _ in taken]


def lock_path(folder: Path) -> Path:
    """The file that a process locks to build or remove an entry; it outlives the entry."""
    return folder.with_name(f"{folder.name}.lock")


def remove_entry(folder: Path) -> None:
    """Remove an entry whose builder's lock is held; those who have it mapped keep what they see."""
    # Without meta.json it is incomplete, should this be cut short.
    (folder / META).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _tenants(root: Path) -> list[_Tenant]:
    found = []
    for folder in root.iterdir():
        if ENTRY_NAME.fullmatch(folder.name):
            with contextlib.suppress(OSError):
                found.append(_Tenant(folder, _size(folder), (folder / USED).stat().st_mtime))
    return found


def _size(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            total += file.stat().st_size
    return total


def _lock_alone(folder: Path) -> list[FileLock] | None:
    """Both locks of an entry, if nobody builds or uses it and it is ours to remove."""
    locks: list[FileLock] = []
    with contextlib.suppress(OSError):
        for path, create in ((lock_path(folder), True), (folder / USED, False)):
            lock = try_lock(path, create=create)
            if lock is None:
                break
            locks.append(lock)
        else:
            return locks
    for lock in locks:
        lock.close()
    return None
