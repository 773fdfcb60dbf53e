"""The figures of the page of results: points with intervals over the length, a panel a scale; templates/lines.svg."""

import math
import statistics

from pages.claims import CHANCE, EPOCHS, PASSES
from pages.found import plain, signed
from stopgrad.report.parts.curves import COLOURS
from stopgrad.report.parts.forest import ticks
from stopgrad.studies.results import LEAST_SEEDS

WIDTH, HEIGHT, TOP, MARGIN, GAP, AXIS = 860, 250, 104, 18, 30, 46
ASIDE = 4.0
"""Series stand a little apart, so that points at one length are all seen."""
SHORTEST = "The shortest of long: one seed, not that of the longer."


def schedules_chart(claims, names):
    """k-NN over passes: complete schedules of different lengths.

    Args:
        claims: what is known.
        names: scale -> name of its panel.
    """
    series = {"simsiam_symmetric_2v": "symmetric SimSiam, two views", "simsiam_gsg_4v": "GSG on four views"}
    panels = {name: [] for name in names.values()}
    for place, arm in enumerate(series):
        for scale, found in claims.schedules(arm).items():
            for study, name in found:
                values = [100 * value for value in study.values(name).values()]
                std = statistics.stdev(values) if len(values) >= LEAST_SEEDS else None
                ends = None if std is None else (-std, std)
                panels[names[scale]].append(_point(place, study.arms[name], statistics.fmean(values), ends))
    feet = ("Each point is a complete schedule, the number beside it its epochs. Bars: deviation of three seeds.",
            f"Hollow: fewer than three seeds. {SHORTEST}")  # fmt: skip
    return _chart("k-NN accuracy over the cost of training, SimSiam", list(series.values()), panels, "k-NN, %",
                  "encoder passes, millions (log scale)", feet)  # fmt: skip


def difference_chart(claims, names):
    """Guided SimSiam minus symmetric and minus random sources, over the length."""
    series = {"minus symmetric, equal epochs": EPOCHS, "minus symmetric, equal passes": PASSES,
              "minus random sources": CHANCE}  # fmt: skip
    panels = {name: [] for name in names.values()}
    for place, rows in enumerate(series.values()):
        for scale, found in claims.differences(rows["simsiam"]).items():
            for study, arm, rival in found:
                d = study.difference(arm, rival)
                ends = [100 * (end - d.mean) for end in d.interval] if d.n >= LEAST_SEEDS else None
                panels[names[scale]].append(_point(place, study.arms[arm], 100 * d.mean, ends))
    feet = ("Below zero guided is behind. The number beside a point: epochs of the guided run. Bars: 95% intervals,",
            f"paired by seed. Hollow: fewer than three seeds, no verdict. {SHORTEST}")  # fmt: skip
    return _chart("Guided SimSiam minus its rivals in k-NN, over the length of training", list(series), panels,
                  "difference, points", "encoder passes of the guided run, millions (log scale)", feet,
                  zero=True)  # fmt: skip


def _point(place, arm, y, ends):
    return {"series": place, "x": arm["passes"] / 1e6, "y": y, "label": arm["epochs"],
            "ends": None if ends is None else (y + ends[0], y + ends[1])}  # fmt: skip


def _chart(title, series, panels, y_name, x_name, feet, *, zero=False):
    """What templates/lines.svg asks for; `zero`: y is a difference."""
    points = [point for own in panels.values() for point in own]
    ends = [end for p in points for end in (p["y"], *(p["ends"] or ()))] + [0.0] * (zero or not points)
    room = 0.08 * (max(ends) - min(ends)) or 1.0
    low, high = min(ends) - room, max(ends) + room

    def y(value):
        return round(TOP + HEIGHT * (high - value) / (high - low), 1)

    levels = ticks(low, high, 6)
    digits = 0 if all(level == round(level) for level in levels) else 1
    width = (WIDTH - 2 * MARGIN - AXIS - GAP * (len(panels) - 1)) / len(panels)
    begins = [MARGIN + AXIS + number * (width + GAP) for number in range(len(panels))]
    return {
        "width": WIDTH, "height": TOP + HEIGHT + 58 + 14 * len(feet), "margin": MARGIN, "axis": MARGIN + AXIS,
        "top": TOP, "bottom": TOP + HEIGHT, "title": title, "key": list(zip(series, COLOURS, strict=False)),
        "panels": [_panel(name, own, begin, begin + width, y, len(series))
                   for begin, (name, own) in zip(begins, panels.items(), strict=True)],
        "levels": [(y(v), (signed if zero else plain)(v, digits)) for v in levels], "zero": y(0.0) if zero else None,
        "y_name": y_name, "x_name": x_name, "feet": feet,
    }  # fmt: skip


def _panel(name, points, begin, end, y, num_series):
    values = [point["x"] for point in points] or [1.0]
    low, high = min(values) / 1.8, max(values) * 1.8

    def x(value):
        return round(begin + (end - begin) * math.log(value / low) / math.log(high / low), 1)

    drawn, lines = [], []
    for place in range(num_series):
        own = sorted((p for p in points if p["series"] == place), key=lambda p: p["x"])
        aside = ASIDE * (place - (num_series - 1) / 2)
        marks = [
            {"x": round(x(p["x"]) + aside, 1), "y": y(p["y"]), "ends": p["ends"] and [y(end) for end in p["ends"]],
             "colour": COLOURS[place], "label": p["label"], "left": place == 0} for p in own
        ]  # fmt: skip
        lines.append((COLOURS[place], " ".join(f"{m['x']},{m['y']}" for m in marks)))
        drawn += marks
    powers = [f * 10.0**p for p in range(-2, 4) for f in (1, 2, 5)]
    return {"name": name, "begin": round(begin, 1), "end": round(end, 1), "points": drawn, "lines": lines,
            "ticks": [(x(v), f"{v:g}") for v in powers if points and low <= v <= high]}  # fmt: skip
