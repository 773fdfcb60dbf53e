"""Files that each process opens for itself."""

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """What `open` returns, opened when first asked for and again in a process that was forked off or unpickles this.

    An open file is shared with a forked process, its position too, and some libraries do not survive a fork. The
    threads of a process share what is opened.
    """

    def __init__(self, open: Callable[[], T]) -> None:
        self._open = open
        self._lock = threading.Lock()
        self._pid, self._opened = -1, None

    def __call__(self) -> T:
        """The open file.

        Raises:
            OSError: it cannot be opened.
        """
        if self._pid != os.getpid():
            # A lock may have been held by another thread when the process was forked.
            if self._pid != -1 and self._lock.locked():
                self._lock = threading.Lock()
            with self._lock:
                if self._pid != os.getpid():
                    self._opened = self._open()  # type: ignore[assignment]
                    self._pid = os.getpid()
        return self._opened  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        return {"open": self._open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["open"])  # type: ignore[misc]
