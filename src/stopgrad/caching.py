"""The folder that is kept between runs, and locks on files, which end with the process that holds them."""

import importlib.util
import os
from pathlib import Path

AUTO, OFF = "auto", "off"
AVAILABLE = importlib.util.find_spec("fcntl") is not None
"""Whether this system has such locks; Windows has none that can be shared."""


def cache_root(setting: str) -> Path | None:
    """The folder that is kept between runs.

    Args:
        setting: "auto": `$STOPGRAD_CACHE` (a folder, or "off"), else the user's cache folder; "off"; or a folder.

    Returns:
        An absolute path, which may not exist yet; None: nothing is to be kept.
    """
    if setting == OFF:
        return None
    if setting != AUTO:
        return Path(setting).expanduser().absolute()
    requested = os.environ.get("STOPGRAD_CACHE", "")
    if requested == OFF:
        return None
    if requested:
        return Path(requested).expanduser().absolute()
    user = os.environ.get("XDG_CACHE_HOME", "")
    # By its specification, a relative path there means nothing.
    return (Path(user) if os.path.isabs(user) else Path("~/.cache").expanduser()) / "stopgrad"


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

    @property
    def descriptor(self) -> int:
        """The locked file, open."""
        assert self._descriptor is not None
        return self._descriptor

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
