"""Loggers in threads of their own, so that a slow or failing one holds up nothing."""

import time
from collections.abc import Callable, Iterable, Mapping
from queue import Full, Queue
from threading import Thread
from typing import Any

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.loggers.choice import LOGGERS
from stopgrad.loggers.protocol import Logger
from stopgrad.reporter import Reporter

MOST_WAITING = 1000
"""Lines of metrics that wait for a logger before it counts as not answering."""
FINISH_SECONDS = 30.0
"""How long the end of a run waits for its loggers, all together."""


class Loggers:
    """Passes a run's figures to its loggers. A logger that fails is warned of once, and off from then on.

    Args:
        names: the loggers; `none` is none.
        run: the run folder.
        config: the settings by name, and the recipe.
        step: steps taken so far.
        reporter: told where the figures are, and of failures; by the caller's thread alone.
    """

    def __init__(
        self, names: Iterable[str], run: RunDir, config: Mapping[str, Any], step: int, reporter: Reporter
    ) -> None:
        self._reporter = reporter
        self._threads = [_LoggerThread(name, run, config, step) for name in names if name in LOGGERS]

    def log(self, line: Mapping[str, Any]) -> None:
        """Pass on a line of metrics.jsonl."""
        values = {name: float(value) for name, value in line.items() if name != "step"}
        for thread in self._threads:
            thread.put(lambda logger: logger.log(line["step"], values))
        self._tell()

    def finish(self, state: str, summary: Mapping[str, Any]) -> None:
        """Tell the loggers how the run ended, and wait for them for a while.

        Args:
            state: `finished`, `stopped` or `failed`.
            summary: summary.json of a finished run; else empty.
        """
        for thread in self._threads:
            thread.put(lambda logger: logger.finish(state, summary), last=True)
        deadline = time.monotonic() + FINISH_SECONDS
        for thread in self._threads:
            thread.join(deadline - time.monotonic())
        self._tell()

    def _tell(self) -> None:
        """Say what the threads have found since the last call."""
        for thread in list(self._threads):
            if thread.problem:
                self._reporter.warn(f"logging to {thread.name} failed and is off: {thread.problem}. The run goes on.")
                self._threads.remove(thread)
            elif thread.where:
                self._reporter.say(f"Logging   {thread.name}: {thread.where}")
                thread.where = ""


class _LoggerThread:
    """One logger and its thread."""

    def __init__(self, name: str, run: RunDir, config: Mapping[str, Any], step: int) -> None:
        self.name, self.where, self.problem = name, "", ""
        self._calls: Queue[Callable[[Logger], None] | None] = Queue(MOST_WAITING)
        self._thread = Thread(target=self._work, args=(run, config, step), name=f"logger {name}", daemon=True)
        self._thread.start()

    def put(self, call: Callable[[Logger], None], *, last: bool = False) -> None:
        """Have the logger do it when it has done the rest; `last` ends the thread then."""
        try:
            self._calls.put_nowait(call)
            if last:
                self._calls.put_nowait(None)
        except Full:
            self.problem = self.problem or f"it does not answer; {self._calls.qsize():,} lines wait for it"

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self.problem = self.problem or "it did not answer before the end of the run"

    def _work(self, run: RunDir, config: Mapping[str, Any], step: int) -> None:
        # Whatever the libraries raise; some exit.
        try:
            logger = LOGGERS[self.name].make()
            self.where = logger.start(run, config, step)
            while (call := self._calls.get()) is not None:
                call(logger)
        except (Exception, SystemExit) as error:
            first = next(iter(str(error).splitlines()), "")
            self.problem = f"{type(error).__name__}: {first}".removesuffix(".")
