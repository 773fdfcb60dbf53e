"""Stopping on request: Ctrl-C, SIGTERM and the time limit are noted here and obeyed between two steps."""

import signal
import threading
import time
from types import FrameType
from typing import Any


class StopRequest:
    """Notes SIGINT and SIGTERM while it is entered; a second Ctrl-C interrupts at once.

    Outside the main thread, where no handler can be set, only the time limit counts.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._deadline: float | None = None

    def limit(self, seconds: float) -> None:
        """Ask for a stop in so many seconds."""
        self._deadline = time.monotonic() + seconds

    def asked(self) -> str | None:
        """Why to stop, or None."""
        if self.reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = "the time limit"
        return self.reason

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
