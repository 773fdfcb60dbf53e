"""The run's page during training: curves and figures so far."""

import time
from collections.abc import Mapping
from typing import Any

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.reporter import Reporter

SECONDS_BETWEEN = 60.0
# At most this share of the time goes into the page.
MOST_SHARE = 0.004


class LivePage:
    """Writes the page of a run in progress, so rarely that training does not feel it.

    A failure to draw never ends a run: it is told of once, and then no more pages are tried.

    Args:
        run, config: the run.
        reporter: told of a failure.
        is_on: whether this process writes pages.
    """

    def __init__(self, run: RunDir, config: Config, reporter: Reporter, *, is_on: bool) -> None:
        self.run, self.config, self.reporter, self.is_on = run, config, reporter, is_on
        self.seconds = 0.0
        """Spent on pages so far."""
        # The first one takes longest: the plots' script has to be packed.
        self._due = time.monotonic() + 2 * SECONDS_BETWEEN

    def renew(self, untrained: Mapping[str, Any]) -> None:
        """Write the page if the last one is old enough."""
        if self.is_on and time.monotonic() >= self._due:
            self._write(untrained, None)

    def write_end(self, state: str, words: str, untrained: Mapping[str, Any]) -> None:
        """Write the page of a run that ends before its time: `stopped` or `failed`, and why."""
        if self.is_on:
            self._write(untrained, (state, words))

    def _write(self, untrained: Mapping[str, Any], ended: tuple[str, str] | None) -> None:
        began = time.monotonic()
        try:
            # The plots' script and the templates are loaded by runs that come so far, and by no others.
            from stopgrad.report.run import write_progress_page

            write_progress_page(self.run, self.config, untrained, ended=ended)
        except Exception as error:
            self.reporter.warn(f"the page of the run could not be drawn, and will not be tried again before the end: "
                               f"{type(error).__name__}: {error}")  # fmt: skip
            self.is_on = False
        took = time.monotonic() - began
        self.seconds += took
        self._due = time.monotonic() + max(SECONDS_BETWEEN, took / MOST_SHARE)
