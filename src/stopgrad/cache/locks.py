"""Locks on files, which end with the process that holds them, however it ends."""

import importlib.util
import os
from pathlib import Path

AVAILABLE = importlib.util.find_spec("fcntl") is not None
"""Whether this system has such locks; Windows has none that can be shared."""


class FileLock:
    """A lock that is held until `close`, or until nobody refers to it; see `try_lock`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def is_on(self, path: Path) -> bool:
        """Whether the locked file is still the one at this path."""
        try:
            return self._descriptor is not None and os.path.samestat(os.fstat(self._descriptor), os.stat(path))
        except OSError:
            return False

    def close(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def try_lock(path: Path, *, shared: bool = False, create: bool = False) -> FileLock | None:
    """Lock a file, exclusively or shared; None if another process holds a conflicting lock.

    Raises:
        OSError: the file cannot be opened or made, or its file system has no locks.
    """
    import fcntl

    # A shared lock needs no write permission: an entry that another user made can be used.
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    lock = FileLock(os.open(path, flags | os.O_CLOEXEC, 0o666))
    try:
        fcntl.flock(lock._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)  # type: ignore[arg-type]
    except BlockingIOError:
        lock.close()
        return None
    return lock
