"""Work on shards before it is asked for."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable

THREADS = 2


class Ahead:
    """Does what will be needed, in threads that end when nothing is left.

    Errors are dropped: they come again where the result is needed.
    """

    def __init__(self, work: Callable[[int], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._wanted: deque[int] = deque()
        self._running = 0

    def want(self, items: Iterable[int]) -> None:
        """Do these in order; what was wanted before and has not begun is forgotten."""
        with self._lock:
            self._wanted = deque(items)
            self._start()

    def also(self, item: int) -> None:
        """Do this after whatever is wanted already."""
        with self._lock:
            if item not in self._wanted:
                self._wanted.append(item)
                self._start()

    def _start(self) -> None:
        while self._running < min(THREADS, len(self._wanted)):
            self._running += 1
            threading.Thread(target=self._run, name="stopgrad-shards", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._running -= 1
                    return
                item = self._wanted.popleft()
            with contextlib.suppress(OSError):
                self._work(item)
