"""How far a run is and how it does, from its folder or told by the training process."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stopgrad.artifacts.names import start_name
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.metrics.verdict import find_collapse
from stopgrad.report.page import finite

# A log that has not grown for longer belongs to a run that has probably stopped.
QUIET_SECONDS = 900
TITLES = {
    "learnt": "Learnt", "healthy": "Healthy", "not_learnt": "Not learnt", "partly_collapsed": "Partly collapsed",
    "collapsed": "Collapsed", "not_collapsed": "Not collapsed", "running": "Running", "stopped": "Not finished",
    "failed": "Failed", "worse": "Worse than it started", "kept_start": "Kept as it started",
}  # fmt: skip
_TONES = {"learnt": "good", "kept_start": "good", "healthy": "good", "not_collapsed": "good", "not_learnt": "warn",
          "partly_collapsed": "warn", "running": "accent", "stopped": "warn"}  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """What stands at the top of the page."""

    state: str
    """A verdict's state, or `running`, `stopped`, `failed`."""
    words: str
    step: int
    total_steps: int

    @property
    def title(self) -> str:
        """The state for people."""
        return TITLES.get(self.state, self.state)

    @property
    def tone(self) -> str:
        """Its colour's name in the style sheet."""
        return tone_of(self.state)


def tone_of(state: str) -> str:
    """The name of a state's colour in the style sheet."""
    return _TONES.get(state, "bad")


def standing_of(
    run: RunDir, config: Config, lines: Sequence[Mapping[str, Any]], summary: Mapping[str, Any] | None,
    untrained: Mapping[str, Any], *, ended: tuple[str, str] | None = None, is_running: bool | None = None,
) -> Standing:  # fmt: skip
    """Judge where a run stands.

    Args:
        run, config: the run and its config.
        lines: of metrics.jsonl.
        summary: what summary.json says; None before the end.
        untrained: the monitor's measurements before the first step; empty where unknown.
        ended: state and words of a run that ended before its time, from the process that knows.
        is_running: from the process that knows; None: judged by the log's age.
    """
    step = int(lines[-1].get("step", 0)) if lines else 0
    total = total_steps(config, lines) or step
    if summary is not None:
        steps = int(summary.get("steps", step))
        return Standing(str(summary.get("verdict", "")), str(summary.get("verdict_words", "")), steps, steps)
    where = f"step {step:,} of {total:,}" if lines else "no line in the log yet"
    health = _health(lines, untrained, start_name(config))
    if ended is not None:
        return Standing(ended[0], f"{ended[1]} {health}".strip(), step, total)
    if is_running is None:
        is_running = _age(run) < QUIET_SECONDS
    if is_running:
        return Standing("running", f"Running: {where}. {health}".strip(), step, total)
    return Standing("stopped", f"Not finished: {where}; --resume continues. {health}".strip(), step, total)


def total_steps(config: Config, lines: Sequence[Mapping[str, Any]]) -> int:
    """Steps of the whole run, which the log's own ratio of steps to epochs gives; 0 where it cannot be known."""
    if config.training.steps:
        return config.training.steps
    for line in reversed(lines):
        if line.get("epoch") and line.get("step"):
            return round(line["step"] / line["epoch"]) * config.training.epochs
    return 0


def _health(lines: Sequence[Mapping[str, Any]], untrained: Mapping[str, Any], before_is: str) -> str:
    measured = next((line for line in reversed(lines) if "feature_std" in line), None)
    if measured is None:
        return "Nothing measured yet."
    words = f"At step {measured['step']:,}: "
    knn, before = finite(measured.get("knn_top1")), finite(untrained.get("knn_top1"))
    if untrained:
        collapse = find_collapse(measured, untrained, before_is)
        words += f"{collapse.words} " if collapse is not None else "no sign of collapse. "
    else:
        words += f"effective rank of the features {measured['effective_rank']:.1f}. "
    if knn is not None:
        words += f"k-NN on training images {knn:.1%}" + (f", {before_is} {before:.1%}." if before is not None else ".")
    return words.strip()


def _age(run: RunDir) -> float:
    try:
        return time.time() - run.metrics_file.stat().st_mtime
    except OSError:
        return float("inf")
