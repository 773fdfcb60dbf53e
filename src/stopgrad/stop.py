"""Stopping on request: Ctrl-C, SIGTERM, SIGUSR1 and the time limit."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from stopgrad.errors import Interrupted

# Batch systems such as SLURM send SIGUSR1 some time before the end (`--signal`); Windows has none.
SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()))
ECHO_SECONDS = 0.5
"""So soon a second signal is the first one again, handed on by a parent that got it too."""


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGUSR1 while entered, to be obeyed between two steps; a second one interrupts at once.

    Outside the main thread, where no handler can be set, only the time limit counts.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._deadline: float | None = None
        self._nothing_to_save: str | None = None
        self._noted_at = 0.0

    def limit(self, seconds: float) -> None:
        """Ask for a stop in so many seconds."""
        self._deadline = time.monotonic() + seconds

    def requested(self) -> str | None:
        """Why to stop, or None."""
        if self.reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = "the time limit"
        return self.reason

    @contextmanager
    def at_once(self, state: str) -> Iterator[None]:
        """A stretch of work with nothing to save: a signal raises `Interrupted` right there.

        Args:
            state: how things stand, for the message.
        """
        self._nothing_to_save = state
        try:
            if self.reason is not None:
                raise Interrupted(f"by {self.reason} {state}")
            yield
        finally:
            self._nothing_to_save = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if self._nothing_to_save is not None:
            raise Interrupted(f"by {name} {self._nothing_to_save}")
        if self.reason is not None:
            if time.monotonic() - self._noted_at < ECHO_SECONDS:
                return
            raise Interrupted(f"by {name} at once; resume continues from the last checkpoint.")
        self.reason, self._noted_at = name, time.monotonic()
