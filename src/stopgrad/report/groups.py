"""Runs that differ in nothing but their seed, put together, and what sets such groups apart."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config

# They change where and how a run is computed and watched, not what it computes.
WITHOUT_INFLUENCE = frozenset(
    {"workers", "cache", "cache_gb", "memory_gb", "strict", "device", "compile", "checkpoint_every_steps",
     "checkpoint_keep", "log_every_steps", "time_limit_seconds", "monitor_every_epochs", "monitor_images", "logger",
     "report"}
)  # fmt: skip


@dataclass(frozen=True)
class RunFigures:
    """A run as a comparison sees it."""

    path: Path
    config: Config
    lines: list[dict[str, Any]]
    """Of metrics.jsonl."""
    summary: dict[str, Any] | None
    """None for a run that is not finished."""
    evaluations: dict[str, dict[str, Any]]

    @property
    def seed(self) -> int:
        """The run's."""
        return self.config.training.seed

    @property
    def key(self) -> tuple[tuple[str, Any], ...]:
        """What runs of one group have in common: all settings with an influence, but the seed."""
        return tuple(
            (name, _as_text(name, value)) for name, value in self.config.flat().items()
            if name != "seed" and name not in WITHOUT_INFLUENCE
        )  # fmt: skip


@dataclass
class Group:
    """Runs of one config, apart from the seed."""

    name: str
    settings: dict[str, Any]
    """Those in which groups differ."""
    runs: list[RunFigures] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """In ascending order, each once."""
        return sorted({run.seed for run in self.runs})


def read_run(run: RunDir) -> RunFigures:
    """Read what a comparison needs; an unreadable summary.json counts as none."""
    summary = None
    if run.summary_file.is_file():
        try:
            summary = run.read_summary()
        except (OSError, ValueError):
            summary = None
    return RunFigures(run.path, run.read_config(), run.read_metrics(), summary, run.read_evaluations())


def grouped(runs: Sequence[RunFigures]) -> list[Group]:
    """The groups, in the order of their first runs, each named by what sets it apart."""
    by_key: dict[tuple[tuple[str, Any], ...], list[RunFigures]] = {}
    for run in runs:
        by_key.setdefault(run.key, []).append(run)
    settings = [dict(key) for key in by_key]
    differing = [name for name in settings[0] if len({s[name] for s in settings}) > 1]
    groups = [
        Group("", {name: own[name] for name in differing}, members)
        for own, members in zip(settings, by_key.values(), strict=True)
    ]
    for group, name in zip(groups, _names(groups, differing), strict=True):
        group.name = name
    return groups


def _names(groups: Sequence[Group], differing: Sequence[str]) -> list[str]:
    """By their settings where those are few; else by their folders; numbered where even that is not enough."""
    if 1 <= len(differing) <= 2:
        return [", ".join(f"{name} {group.settings[name]}" for name in differing) for group in groups]
    names = [_stem([run.path.resolve().name for run in group.runs]) for group in groups]
    if len(set(names)) < len(names) or not all(names):
        names = [f"{name or 'group'} ({number})" for number, name in enumerate(names, 1)]
    return names


def _stem(names: Sequence[str]) -> str:
    """What names have in common, without a trailing seed: cifar-0, cifar-1 -> cifar."""
    first, last = min(names), max(names)
    shared = next((first[:i] for i, letter in enumerate(first) if last[i : i + 1] != letter), first)
    if len(names) > 1:
        return shared.rstrip("0123456789").rstrip("-_. ") or shared
    return shared


def _as_text(name: str, value: Any) -> Any:
    """A path without a trailing slash, anything else as it is."""
    return str(Path(value)) if name == "path" and value else value
