"""From the results of cells to those of a study: means, paired differences, curves."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from scipy.stats import t as student

from stopgrad.artifacts.environment import machine_words
from stopgrad.studies.cells import Cell, CellStore, passes_an_image
from stopgrad.studies.questions.accuracy import UNTRAINED
from stopgrad.studies.scales import Scale
from stopgrad.studies.study import Arm, Study

CONFIDENCE = 0.95
LEAST_SEEDS = 3
"""With fewer there is no verdict."""


@dataclass(frozen=True)
class MeanStd:
    """Some seeds' values."""

    mean: float
    std: float | None
    """Sample standard deviation; None for one value."""
    values: Sequence[float]


@dataclass(frozen=True)
class Difference:
    """An arm's difference to its rival, paired by seed."""

    n: int
    mean: float
    interval: tuple[float, float] | None
    """95%, by Student's t over the pairs; None with fewer than two."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `no significant difference` or `too few seeds`."""
        if self.interval is None or self.n < LEAST_SEEDS:
            return "too few seeds"
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "no significant difference"


def mean_std_of(values: Sequence[float]) -> MeanStd:
    """Mean and sample standard deviation of one value or more."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return MeanStd(statistics.fmean(values), std, tuple(values))


def difference_of(arm: Mapping[int, float], rival: Mapping[int, float]) -> Difference | None:
    """The mean of arm - rival over the seeds both have, with its interval; None where they share none.

    Args:
        arm, rival: seed -> value.
    """
    differences = [arm[seed] - rival[seed] for seed in sorted(arm) if seed in rival]
    if not differences:
        return None
    own = mean_std_of(differences)
    if own.std is None:
        return Difference(1, own.mean, None)
    n = len(differences)
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * own.std / math.sqrt(n)
    return Difference(n, own.mean, (own.mean - half, own.mean + half))


FIGURES = ("knn_top1", "linear_top1")
HEALTH = ("feature_std", "effective_rank", "projection_std", "projection_effective_rank")
Found = Mapping[int, Mapping[str, Any]]
"""Seed -> result of a cell."""


def results_of(
    study: Study, scale: Scale, cells: Sequence[Cell], store: CellStore, *, transferred_to: Sequence[str] = ()
) -> dict[str, Any]:
    """What is known of a study so far: one JSON object, which the page and the figure are drawn from.

    Args:
        study, scale: which.
        cells: all its cells, run or not.
        store: where their results are.
        transferred_to: names of other sets, whose figures are wanted too.
    """
    found = {
        (cell.arm.name, cell.seed): _with_figures(result, transferred_to)
        for cell in cells if (result := store.read(cell)) is not None
    }  # fmt: skip
    names = [*study.figures, *(_transfer_name(name, figure) for name in transferred_to for figure in FIGURES)]
    done = {key: result for key, result in found.items() if "error" not in result}
    by_arm = {
        arm.name: {seed: result for (name, seed), result in done.items() if name == arm.name} for arm in study.arms
    }
    any_result = next(iter(done.values()), {})
    baselines = _baselines(scale, cells, store)
    comparisons = [
        row for figure in names for comparison in study.comparisons
        if (row := _compared(comparison.arm, comparison.rival, comparison.question, figure, by_arm)) is not None
    ]  # fmt: skip
    halves = [(c["interval"][1] - c["interval"][0]) / 2 for c in comparisons
              if c["n"] >= LEAST_SEEDS and c["figure"] == FIGURES[0]]  # fmt: skip
    return {
        "study": study.name, "scale": scale.name, "title": study.title, "question": study.question,
        "images": scale.words, "protocol": any_result.get("knn_protocol", ""),
        "linear_protocol": any_result.get("linear_protocol", ""),
        "transfer_protocols": {name: any_result["transfer"][name]["knn_protocol"] for name in transferred_to
                               if name in any_result.get("transfer", {})},
        "machines": _machines(done.values()),
        "judged_by": cells[0].images.judged_by if cells else "", "environment": any_result.get("environment", {}),
        "complete": len(done) == len(cells), "num_cells": len(cells), "num_done": len(done),
        "arms": [_arm_entry(arm, scale, cells, by_arm[arm.name], found) | baselines for arm in study.arms],
        "comparisons": comparisons, "resolution": statistics.median(halves) if halves else None,
    }  # fmt: skip


def _machines(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """On what the cells were computed; more than one is a mixture, to be said."""
    return sorted({machine_words(result["environment"]) for result in results})


def _with_figures(result: Mapping[str, Any], transferred_to: Sequence[str]) -> dict[str, Any]:
    """The result of a cell with all its numbers in one mapping, `figures`."""
    if "error" in result:
        return dict(result)
    figures = {name: result[name] for name in FIGURES} | {name: result["final"][name] for name in HEALTH}
    for other in transferred_to:
        measured = result.get("transfer", {}).get(other, {})
        figures |= {_transfer_name(other, name): measured[name] for name in FIGURES if name in measured}
    return {**result, "figures": figures}


def _transfer_name(other: str, figure: str) -> str:
    return f"{other}_{figure}"


def _baselines(scale: Scale, cells: Sequence[Cell], store: CellStore) -> dict[str, float | None]:
    """k-NN of untrained networks and of raw pixels, where some study has measured them at this scale."""
    if not cells:
        return {}
    alike = [replace(cell, arm=UNTRAINED, config=UNTRAINED.config(scale, seed)) for seed, cell in
             {cell.seed: cell for cell in cells}.items()]  # fmt: skip
    found = [result["knn"] for cell in alike if (result := store.read(cell)) is not None and "error" not in result]
    return {
        "untrained_knn": _mean(knn.get("untrained") for knn in found),
        "pixels_knn": _mean(knn.get("pixels_centred") for knn in found),
    }


def _compared(
    arm: str, rival: str, question: str, figure: str, by_arm: Mapping[str, Found]
) -> dict[str, Any] | None:  # fmt: skip
    own, other = (
        {
            seed: result["figures"][figure]
            for seed, result in by_arm.get(name, {}).items()
            if figure in result["figures"]
        }
        for name in (arm, rival)
    )
    difference = difference_of(own, other)
    if difference is None:
        return None
    return {
        "arm": arm, "rival": rival, "question": question, "figure": figure, "n": difference.n,
        "difference": difference.mean, "interval": None if difference.interval is None else list(difference.interval),
        "verdict": difference.verdict,
    }  # fmt: skip


def _arm_entry(
    arm: Arm, scale: Scale, cells: Sequence[Cell], done: Found, found: Mapping[tuple[str, int], Mapping[str, Any]]
) -> dict[str, Any]:
    config = next(cell.config for cell in cells if cell.arm.name == arm.name)
    results = [done[seed] for seed in sorted(done)]
    on_cpu = bool(results) and results[0]["environment"].get("device_type") == "cpu"
    names = [name for name in results[0]["figures"] if all(name in r["figures"] for r in results)] if results else []
    figures = {name: asdict(mean_std_of([r["figures"][name] for r in results])) for name in names}
    return {
        "name": arm.name, "words": arm.words,
        "settings": {**arm.settings_at(scale), "lr": config.optimization.lr,
                     "batch_size": config.training.batch_size},
        # By which what is not told here is found in cells/: the curve of each, and what is under seal.
        "cells": {str(cell.seed): cell.key for cell in cells if cell.arm.name == arm.name and cell.seed in done},
        "epochs": config.training.epochs, "passes_an_image": passes_an_image(config),
        "passes": _mean(r["passes"] for r in results), "seeds": sorted(done),
        # Of a core where cells share a machine; of the clock where each has a device.
        "seconds": _mean(r["cpu_seconds" if on_cpu else "seconds"] for r in results),
        "figures": figures, "verdicts": dict(Counter(r["verdict"] for r in results)),
        "curve": _mean_curve([_priced_curve(r, on_cpu=on_cpu) for r in results]),
        "failed": [{"seed": seed, "error": result["error"]} for (name, seed), result in sorted(found.items())
                   if name == arm.name and "error" in result],
    }  # fmt: skip


def _priced_curve(result: Mapping[str, Any], *, on_cpu: bool) -> list[dict[str, float]]:
    """The curve, its seconds of the kind of the price: on a CPU the clock counts what else the machine did too."""
    factor = result["cpu_seconds"] / result["seconds"] if on_cpu and result["seconds"] else 1.0
    return [{**point, "seconds": point["seconds"] * factor} for point in result["curve"]]


def _mean_curve(curves: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Point by point, as far as all seeds go."""
    if not curves:
        return []
    return [
        {name: statistics.fmean(p[name] for p in points) for name in points[0] if all(name in p for p in points)}
        for points in zip(*curves, strict=False)
    ]


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
