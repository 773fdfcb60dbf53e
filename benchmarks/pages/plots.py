"""The figures of the page of results: points with intervals over the length, a panel a scale; templates/lines.svg."""

import math
import statistics

from pages.numbers import LEAST_SEEDS, plain, signed

from stopgrad.report.curves import COLOURS
from stopgrad.report.forest import ticks
from stopgrad.report.lettering import wrapped

WIDTH, PLOT_HEIGHT, MARGIN, GAP, AXIS = 860, 250, 18, 30, 46
TOP, SIZE = 104, 12
ASIDE = 4.0
"""Points of different series at one length stand a little apart."""


def chart(title, series, panels, y_name, x_name, feet, *, sign=False):
    """The values of a figure for its template.

    Args:
        title: what it shows.
        series: the names in the key, in order.
        panels: pairs of a name and points; a point has `series` (its place in `series`), `x`, `y`, `low`, `high` (None:
            no interval), `label` and `n`, the number of seeds.
        y_name, x_name: of the axes.
        feet: sentences below.
        sign: whether y is a difference, with a line at zero.
    """
    points = [point for _, own in panels for point in own]
    ends = [end for p in points for end in (p["y"], p["low"], p["high"]) if end is not None] + [0.0] * sign
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.08 * (high - low) or 1.0
    low, high = low - room, high + room
    bottom = TOP + PLOT_HEIGHT

    def y(value):
        return round(bottom - PLOT_HEIGHT * (value - low) / (high - low), 1)

    write = signed if sign else plain
    levels = ticks(low, high, 6)
    digits = 0 if all(level == round(level) for level in levels) else 1
    width = (WIDTH - 2 * MARGIN - AXIS - GAP * (len(panels) - 1)) / len(panels)
    shown = []
    for number, (name, own) in enumerate(panels):
        begin = MARGIN + AXIS + number * (width + GAP)
        shown.append(_panel(name, own, begin, begin + width, y, len(series)))
    lines = wrapped(" ".join(feet), WIDTH - 2 * MARGIN, 11, 4)
    return {
        "width": WIDTH, "height": bottom + 54 + 14 * len(lines), "size": SIZE, "margin": MARGIN, "top": TOP,
        "bottom": bottom, "title": title, "key": list(zip(series, COLOURS, strict=False)), "panels": shown,
        "levels": [(y(level), write(level, digits)) for level in levels], "zero": y(0.0) if sign else None,
        "y_name": y_name, "x_name": x_name, "feet": lines, "axis": MARGIN + AXIS, "end": WIDTH - MARGIN,
    }  # fmt: skip


def _panel(name, points, begin, end, y, num_series):
    values = [point["x"] for point in points]
    low, high = (min(values) / 1.35, max(values) * 1.35) if values else (1.0, 10.0)

    def x(value):
        return round(begin + (end - begin) * math.log(value / low) / math.log(high / low), 1)

    drawn, lines = [], []
    for place in range(num_series):
        own = sorted((p for p in points if p["series"] == place), key=lambda p: p["x"])
        aside = ASIDE * (2 * place - num_series + 1) / 2 if num_series > 1 else 0.0
        at = [(round(x(p["x"]) + aside, 1), y(p["y"])) for p in own]
        lines.append((COLOURS[place], " ".join(f"{left},{top}" for left, top in at)))
        for point, (left, top) in zip(own, at, strict=True):
            ends = None if point["low"] is None else (y(point["low"]), y(point["high"]))
            drawn.append({"x": left, "y": top, "ends": ends, "colour": COLOURS[place], "label": point["label"],
                          "hollow": point["n"] < LEAST_SEEDS, "left": place % 2 == 0})  # fmt: skip
    return {
        "name": name, "begin": round(begin, 1), "end": round(end, 1), "points": drawn, "lines": lines,
        "ticks": [(x(v), f"{v:g}") for v in _steps(low, high)] if points else [],
    }  # fmt: skip


def _steps(low, high):
    """Round lengths between two, on a log scale."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [f * 10.0**p for p in powers for f in (1, 2, 5) if low <= f * 10.0**p <= high]


def schedules_chart(claims, names):
    """k-NN over passes, complete schedules of different lengths."""
    kinds = {"symmetric": "symmetric SimSiam, two views", "gsg": "GSG on four views, as published"}
    found = {kind: claims.schedules(kind) for kind in kinds}
    panels = []
    for scale, name in names.items():
        points = []
        for place, kind in enumerate(kinds):
            for own in found[kind][scale]:
                values = own["values"]
                mean, std = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
                points.append({
                    "series": place, "x": own["passes"], "y": mean, "n": len(values), "label": str(own["epochs"]),
                    "low": None if std is None else mean - std, "high": None if std is None else mean + std,
                })  # fmt: skip
        panels.append((name, points))
    feet = ["Each point is a complete schedule; the number beside it is its epochs. Bars: mean ± deviation of three "
            "seeds. Hollow: fewer than three seeds, without a verdict."]  # fmt: skip
    return chart("k-NN accuracy over what training costs, SimSiam", list(kinds.values()), panels, "k-NN, %",
                 "encoder passes, millions (log scale)", feet)  # fmt: skip


def difference_chart(claims, names):
    """Guided minus symmetric, over the length."""
    series = ["at equal epochs (twice the passes)", "at equal passes"]
    found = [claims.differences(place) for place in range(len(series))]
    panels = []
    for scale, name in names.items():
        points = []
        for place in range(len(series)):
            for own in found[place][scale]:
                d = own["difference"]
                whole = d.interval is not None and d.n >= LEAST_SEEDS
                points.append({
                    "series": place, "x": own["passes"], "y": 100 * d.mean, "n": d.n, "label": str(own["epochs"]),
                    "low": 100 * d.interval[0] if whole else None, "high": 100 * d.interval[1] if whole else None,
                })  # fmt: skip
        panels.append((name, points))
    feet = ["Below zero symmetric is ahead. The number beside a point is the epochs of the guided run; bars: 95% "
            "intervals, paired by seed. Hollow: fewer than three seeds, without a verdict."]  # fmt: skip
    return chart("Guided minus symmetric SimSiam in k-NN, over the length of training", series, panels,
                 "difference, points", "encoder passes of the guided run, millions (log scale)", feet,
                 sign=True)  # fmt: skip
