"""What a logger is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from stopgrad.artifacts.run_dir import RunDir

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
"""How a run may end."""


class Logger(Protocol):
    """Takes a run's config, its metrics and how it ended.

    All calls come from one thread, which training does not wait for. Whatever they raise turns the logger off.
    """

    def start(self, run: RunDir, config: Mapping[str, Any], step: int) -> str:
        """Begin, or go on with the logged run that an earlier sitting began.

        Args:
            run: the run folder; its name is the run's, and an id that has to be remembered is kept in it.
            config: the settings by name, and the recipe.
            step: steps taken so far.

        Returns:
            Where the figures are, in words; empty: need not be said.
        """
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, without its step."""
        ...

    def finish(self, state: str, summary: Mapping[str, Any]) -> None:
        """End the sitting.

        Args:
            state: `finished`, `stopped` or `failed`.
            summary: summary.json of a finished run; else empty.
        """
        ...


def numbers_of(summary: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a summary by their path, as in `knn/trained`."""
    found: dict[str, float] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            found |= numbers_of(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + name] = float(value)
    return found


def kept_id(file: Path) -> str | None:
    """The id of the logged run that an earlier sitting left; None: this is the first."""
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def keep_id(file: Path, id_: str) -> None:
    """Remember the id of the logged run, for a run that is resumed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(id_ + "\n", encoding="utf-8")
