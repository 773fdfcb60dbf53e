"""The curves of a run, or of several in one picture, as plain data for templates/plots.js."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stopgrad.report.page import finite

MAX_LINES = 1500
"""Lines of the log that are drawn: more would not be seen, and would make long runs' pages heavy."""
# Okabe and Ito, "Color Universal Design" (2008): distinguishable for colour-blind readers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5a5a5a", "#b8a900")
# What stands along the x axis, and the log's name of it.
X_AXES = {"step": "steps", "epoch": "epochs", "images_seen": "images seen", "seconds": "seconds of training"}


@dataclass(frozen=True)
class Chart:
    """One picture: what it shows, and what that means."""

    key: str
    title: str
    unit: str
    """The y axis."""
    series: Mapping[str, str]
    """Name in metrics.jsonl -> name for people."""
    words: str
    log: bool = False
    percent: bool = False


CHARTS = (
    Chart("loss", "Loss", "negative cosine", {"loss": "loss"},
          "Mean over the steps since the point before; -1 where predictions and targets agree in full. A collapsed run "
          "comes near -1 as well, so read it beside standard deviation and rank."),
    Chart("knn", "k-NN accuracy while training", "top-1, %", {"knn_top1": "k-NN"},
          "Training images ask other training images, so that watching tunes nothing on test images. It is not the "
          "figure at the top.", percent=True),
    Chart("spread", "Standard deviation", "1: evenly on the sphere",
          {"feature_std": "features", "projection_std": "projections"},
          "How far the L2-normalised features of different images lie apart: 0 if all images get the same, about 1 for "
          "directions drawn at random."),
    Chart("rank", "Effective rank", "dimensions (log scale)",
          {"effective_rank": "features", "projection_effective_rank": "projections"},
          "How many dimensions the features use. Near 1 they lie on a line: collapsed, whatever the standard "
          "deviation.",
          log=True),
    Chart("alignment", "Alignment", "squared distance",
          {"alignment": "two views of an image", "relative_alignment": "as a share of that between images"},
          "How far two views of one image lie apart. It should fall while the standard deviation stays."),
    Chart("uniformity", "Uniformity", "log of the mean potential", {"uniformity": "features"},
          "How evenly the features fill the sphere: 0 for a constant, toward -4 for an even distribution."),
    Chart("guide_balance", "How the guide chose: balance", "share of the weight on first views",
          {"guide_balance": "balance"},
          "How often an image's first view is the source. Views are drawn alike, so it should scatter about 0.5; a "
          "lasting lean to one side would be a fault."),
    Chart("guide_margin", "How the guide chose: margin", "share of the mean distance", {"guide_margin": "margin"},
          "How much nearer the nearest of two images' four cross-image pairs is than the next. Near 0 the choice is a "
          "toss-up; the larger, the more decided the guide."),
    Chart("lr", "Learning rate", "learning rate", {"lr": "learning rate"}, "As the schedule set it."),
    Chart("views", "Throughput", "views a second", {"views_per_second": "views/s"},
          "Views trained on in a second, without the time for measuring."),
)  # fmt: skip


def run_curves(
    lines: Sequence[Mapping[str, Any]], untrained: Mapping[str, Any], before_is: str
) -> dict[str, Any] | None:  # fmt: skip
    """One run's curves; None where the log is empty yet.

    Args:
        lines: of metrics.jsonl.
        untrained: the same measurements before the first step, drawn as dashed levels.
        before_is: what the network then is called.
    """
    shown = thinned(lines)
    if not shown:
        return None
    charts = []
    for chart in CHARTS:
        series = []
        for number, (key, name) in enumerate(chart.series.items()):
            drawn = series_of(chart, key, shown)
            if drawn is not None:
                level = finite(untrained.get(key))
                scale = 100 if chart.percent else 1
                series.append({
                    **drawn, "name": name, "colour": COLOURS[number], "width": 2, "group": key,
                    "level": None if level is None else level * scale,
                })  # fmt: skip
        if series:
            charts.append(describe(chart, series))
    return {"axes": X_AXES, "runs": [x_values(shown)], "charts": charts, "before": before_is,
            "thinned": [len(shown), len(lines)] if len(shown) < len(lines) else None}  # fmt: skip


def describe(chart: Chart, series: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A chart with its lines."""
    return {"key": chart.key, "title": chart.title, "unit": chart.unit, "words": chart.words, "log": chart.log,
            "series": list(series)}  # fmt: skip


def x_values(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """A run's places along every x axis."""
    return {name: [finite(line.get(name)) for line in lines] for name in X_AXES}


def series_of(chart: Chart, key: str, lines: Sequence[Mapping[str, Any]], run: int = 0) -> dict[str, Any] | None:
    """One line of a chart; None where it was never measured.

    Measurements are rarer than lines of the log: `at` says at which lines they stand. What is not finite is a gap.
    """
    at = [place for place, line in enumerate(lines) if key in line]
    scale = 100 if chart.percent else 1
    values = [finite(lines[place][key]) for place in at]
    if all(value is None for value in values):
        return None
    return {"run": run, "at": None if len(at) == len(lines) else at,
            "y": [None if value is None else float(f"{value * scale:.5g}") for value in values]}  # fmt: skip


def thinned(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most about `MAX_LINES` lines of a log: every so manyth, the last, and all with measurements."""
    stride = -(-len(lines) // MAX_LINES)
    if stride <= 1:
        return list(lines)
    measured = sum("feature_std" in line for line in lines)
    keeps_all = measured <= MAX_LINES
    return [
        line for place, line in enumerate(lines)
        if place % stride == 0 or place == len(lines) - 1 or (keeps_all and "feature_std" in line)
    ]  # fmt: skip
