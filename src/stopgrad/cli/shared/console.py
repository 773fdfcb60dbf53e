"""Console output: a progress bar on a terminal, plain lines in a log."""

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from stopgrad.visible import visible

SECONDS_BETWEEN_LINES = 10.0


class _PlainConsole(Console):
    """Control characters are shown: a name must not steer the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does, of what can be seen."""
        return super().render_str(visible(text), **options)


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints texts as they are, in cells of tables too.

    Names of classes and files may look like markup or emoji codes: `dog [small]`, `a[/b]`, `:dog:`. Their control
    characters are shown as escapes.
    """
    return _PlainConsole(stderr=stderr, width=width, highlight=False, soft_wrap=True, markup=False, emoji=False)


class ConsoleReporter:
    """Reports to stdout, or to stderr where stdout is for JSON; warnings always to stderr."""

    def __init__(self, *, json: bool = False) -> None:
        self.console = plain_console(stderr=json)
        self.warnings = plain_console(stderr=True)
        self.json = json
        self._bar: Progress | None = None
        self._what = ""
        self._last_line = 0.0
        self._began = (0.0, 0)

    def __enter__(self) -> "ConsoleReporter":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._end_bar()

    def say(self, text: str) -> None:
        """A line."""
        self.console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """A line on stderr."""
        self.warnings.print(f"warning: {text}", markup=False, style="yellow")

    def progress(self, what: str, done: int, total: int, details: str = "") -> None:
        """Move the bar, or print a line now and then where there is no terminal."""
        what, details = visible(what), visible(details)
        if not self.console.is_terminal:
            self._print_line(what, done, total, details)
            return
        if self._bar is None or what != self._what:
            self._end_bar()
            self._bar = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                TimeRemainingColumn(), TextColumn("{task.fields[details]}", markup=False),
                console=self.console, refresh_per_second=4,
            )  # fmt: skip
            self._bar.start()
            self._bar.add_task(what, total=total, completed=done, details=details)
            self._what = what
        else:
            task = self._bar.tasks[0]
            self._bar.update(task.id, completed=done, details=details or task.fields["details"])
        if done >= total:
            self._end_bar()

    def _print_line(self, what: str, done: int, total: int, details: str) -> None:
        now = time.monotonic()
        if what != self._what:
            # The clock starts with the work, so that short work prints nothing.
            self._what, self._last_line, self._began = what, now, (now, done)
        if (now - self._last_line >= SECONDS_BETWEEN_LINES and (details or what != "training")) or (
            done >= total and details
        ):
            self._last_line = now
            began, done_before = self._began
            left = ""
            # By the pace since this call saw it first: a run that goes on was not at the first step then.
            if done_before < done < total and now > began:
                left = time_left((now - began) / (done - done_before) * (total - done))
            self.say("  ".join(part for part in (f"{what} {done}/{total}", details, left) if part))
        if done >= total:
            self._what = ""

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._what = ""


def time_left(seconds: float) -> str:
    """A remaining time, as exact as it can be known: `40 s left`, `3 min left`, `1 h 20 min left`, `2.5 days left`."""
    if seconds < 90:
        return f"{max(10, round(seconds / 10) * 10)} s left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min left"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min left"
    return f"{minutes / 60 / 24:.1f} days left"


def print_json(content: object) -> None:
    """One JSON object on stdout."""
    import json

    sys.stdout.write(json.dumps(content) + "\n")
