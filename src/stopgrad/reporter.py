"""Progress and messages of long jobs."""

import warnings
from typing import Protocol, runtime_checkable


@runtime_checkable
class Reporter(Protocol):
    """Told what happens; prints it, shows it, or not."""

    def say(self, text: str) -> None:
        """A line of information."""
        ...

    def warn(self, text: str) -> None:
        """Something the user should know of."""
        ...

    def progress(self, what: str, done: int, total: int, details: str = "") -> None:
        """How far a long piece of work is; `done == total` ends it."""
        ...


class SilentReporter:
    """Nothing at all: for all processes but the first."""

    def say(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""

    def progress(self, what: str, done: int, total: int, details: str = "") -> None:
        """Nothing."""


class QuietReporter(SilentReporter):
    """Warnings as Python warnings, and nothing else: the default in Python."""

    def warn(self, text: str) -> None:
        """A `UserWarning`."""
        warnings.warn(text, stacklevel=3)
