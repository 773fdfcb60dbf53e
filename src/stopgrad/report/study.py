"""The page and the figure of a study: arms, comparisons and their confidence intervals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from stopgrad.report.page import finite, packed_plotly, write_page
from stopgrad.report.parts.curves import CHARTS, COLOURS, describe, series_of
from stopgrad.report.parts.forest import NONE, figure_name, forest_of, is_accuracy
from stopgrad.report.parts.pictures import as_script
from stopgrad.report.parts.progress import TITLES, tone_of
from stopgrad.report.parts.study_figure import figure_values

X_AXES = {"epoch": "epochs", "passes": "encoder passes", "seconds": "seconds of training"}
# The arms' own names of the same.
_ENDS = {"epoch": "epochs", "passes": "passes", "seconds": "seconds"}
NOT_COLLAPSED = "not_collapsed"
"""The one state that cells are checked for: without baselines there is no verdict on what they learnt."""
# Each round of the colours has its own symbol and dash.
ROUNDS = (("circle", "solid"), ("square", "dash"), ("diamond", "dot"), ("triangle-up", "dashdot"),
          ("cross", "longdash"), ("hourglass", "longdashdot"))  # fmt: skip


def draw_study(results: Mapping[str, Any], page: Path, figure: Path | None = None) -> None:
    """Draw a study's results, finished or not. Existing files are replaced.

    Args:
        results: as `stopgrad study` writes them; what is missing is left out of the page, and NaN and the infinities
            count as missing.
        page: the page to write: one HTML file that fetches nothing.
        figure: a static picture of it to write, SVG of 1,000 pixels width; None: none.
    """
    found = finite(results)
    write_page(page, "study.html", **_page_values(found))
    if figure is not None:
        write_page(figure, "study.svg", **figure_values(found))


def _page_values(found: Mapping[str, Any]) -> dict[str, Any]:
    arms = [_arm(arm, place) for place, arm in enumerate(found.get("arms") or ())]
    words = {arm["name"]: arm["words"] for arm in arms}
    charts, runs = _charts(found.get("arms") or (), arms)
    scatter = _scatter(arms)
    differing, shared = _settings(found.get("arms") or ())
    curves = {"axes": X_AXES, "runs": runs, "charts": charts, "legend": False} if charts else None
    return {
        "title": found.get("title") or f"Study {found.get('study', '')}", "question": found.get("question") or "",
        "facts": _facts(found, arms), "partial": partial_words(found), "images": found.get("images") or "",
        "protocol": found.get("protocol") or "", "arms": arms, "baselines": _baselines(found, arms),
        "forests": _forests(found.get("comparisons") or (), words), "resolution": found.get("resolution"),
        "accuracies": accuracies_of(found), "scatter": as_script(scatter),
        "transfer_protocols": list((found.get("transfer_protocols") or {}).values()),
        "scatter_figures": scatter["figures"] if scatter else [],
        "scatter_axes": list(scatter["axes"]) if scatter else [],
        "figure_name": figure_name, "curves": as_script(curves), "charts": charts, "axes": _axes_of(runs),
        "plotly": packed_plotly() if curves or scatter else "", "command": found.get("command") or "",
        "environment": _environment(found.get("environment") or {}), "differing": differing, "shared": shared,
        "settings": [arm.get("settings") or {} for arm in found.get("arms") or ()],
        "written": datetime.now().astimezone().isoformat(" ", "seconds"),
    }  # fmt: skip


def accuracies_of(found: Mapping[str, Any]) -> list[str]:
    """The accuracies that some arm has, that of k-NN first."""
    keys = dict.fromkeys(key for arm in found.get("arms") or () for key in arm.get("figures") or {})
    return ["knn_top1", *(key for key in keys if is_accuracy(key) and key != "knn_top1")]


def partial_words(found: Mapping[str, Any]) -> str:
    """How much of an incomplete study there is; empty for a complete one."""
    if found.get("complete", True):
        return ""
    failed = sum(len(arm.get("failed") or ()) for arm in found.get("arms") or ())
    return f"partial: {found.get('num_done', '?')} of {found.get('num_cells', '?')} cells" + (
        f", {failed} failed" if failed else ""
    )


def _facts(found: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> list[str]:
    device = (found.get("environment") or {}).get("device")
    facts = [f"scale {found['scale']}" if found.get("scale") else "",
             f"{len(arms)} arms" if len(arms) != 1 else "1 arm",
             f"{found.get('num_done')} cells (an arm and a seed each)" if found.get("num_done") is not None else "",
             str(device or "")]  # fmt: skip
    return [fact for fact in facts if fact]


def _arm(arm: Mapping[str, Any], place: int) -> dict[str, Any]:
    name = str(arm.get("name", f"arm {place + 1}"))
    figures = {key: own for key, own in (arm.get("figures") or {}).items() if own and own.get("mean") is not None}
    symbol, dash = ROUNDS[place // len(COLOURS) % len(ROUNDS)]
    seeds = arm.get("seeds") or []
    measured = [sum(v is not None for v in own.get("values") or seeds) for own in figures.values()]
    return {
        "name": name, "words": str(arm.get("words") or name), "number": place + 1, "figures": figures, "seeds": seeds,
        "n": max(measured, default=0),
        "epochs": arm.get("epochs"), "passes_an_image": arm.get("passes_an_image"), "passes": arm.get("passes"),
        "seconds": arm.get("seconds"), "lr": (arm.get("settings") or {}).get("lr"),
        "untrained_knn": arm.get("untrained_knn"), "pixels_knn": arm.get("pixels_knn"),
        "verdicts": [
            {"words": TITLES.get(state, state).lower().replace("_", " "), "num": num,
             "tone": "good" if state == NOT_COLLAPSED else tone_of(state)}
            for state, num in (arm.get("verdicts") or {}).items() if num
        ],
        "failed": arm.get("failed") or [], "colour": COLOURS[place % len(COLOURS)], "symbol": symbol,
        "dash": dash,
    }  # fmt: skip


def _baselines(found: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The accuracies of what has learnt nothing, each with the arms that it belongs to.

    Those of the whole study are measured by the table's protocol; those of arms, which stand in for want of them, may
    be the monitor's.
    """
    rows: list[dict[str, Any]] = []
    for key, words in (("untrained_knn", "untrained network"), ("pixels_knn", "raw pixels, mean-centred")):
        if key in found:
            if found[key] is not None:
                rows.append({"words": words, "value": found[key], "arms": []})
            continue
        values: dict[float, list[str]] = {}
        for arm in arms:
            if arm[key] is not None:
                values.setdefault(round(arm[key], 4), []).append(arm["words"])
        rows += [
            {"words": words, "value": value, "arms": own if len(values) > 1 else []} for value, own in values.items()
        ]
    return rows


def _forests(comparisons: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> list[dict[str, Any]]:
    """A forest for each figure that is compared."""
    by_figure: dict[str, list[Mapping[str, Any]]] = {}
    for comparison in comparisons:
        by_figure.setdefault(str(comparison.get("figure") or "knn_top1"), []).append(comparison)
    forests = []
    for key, own in by_figure.items():
        forest = forest_of(own, 100 if is_accuracy(key) else 1)
        for row, comparison in zip(forest["rows"], own, strict=True):
            row |= {"arm": words.get(comparison.get("arm", ""), comparison.get("arm")),
                    "rival": words.get(comparison.get("rival", ""), comparison.get("rival")),
                    "question": comparison.get("question") or "", "n": comparison.get("n"),
                    "verdict": comparison.get("verdict") or NONE}  # fmt: skip
        unit = "points" if is_accuracy(key) else "as it is"
        forests.append({**forest, "figure": figure_name(key), "unit": unit, "digits": 1 if is_accuracy(key) else 3})
    return forests


def _scatter(arms: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Final accuracies against what they cost; None where there are none. What was not trained has no price."""
    points = []
    for arm in (arm for arm in arms if arm["lr"] != 0):
        figures = {
            key: {"mean": 100 * own["mean"], "std": None if own.get("std") is None else 100 * own["std"]}
            for key, own in arm["figures"].items() if is_accuracy(key)
        }  # fmt: skip
        if figures:
            points.append({"name": arm["words"], "group": arm["number"], "colour": arm["colour"],
                           "symbol": arm["symbol"], "figures": figures,
                           **{axis: arm[key] for axis, key in _ENDS.items()}})  # fmt: skip
    axes = {axis: words for axis, words in X_AXES.items() if any(point[axis] is not None for point in points)}
    shown = list(dict.fromkeys(key for point in points for key in point["figures"]))
    return {"points": points, "axes": axes, "figures": shown} if axes else None


def _charts(arms: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The curves for templates/plots.js: a chart a measurement, a line an arm; and the places along the x axes."""
    logs = [arm.get("curve") or [] for arm in arms]
    charts = []
    for chart in CHARTS:
        for key, what in chart.series.items():
            series = []
            for place, (log, arm) in enumerate(zip(logs, shown, strict=True)):
                drawn = series_of(chart, key, log, place)
                if drawn is not None:
                    series.append({**drawn, "name": arm["words"], "group": arm["number"], "colour": arm["colour"],
                                   "dash": arm["dash"], "symbol": arm["symbol"], "width": 1.6,
                                   "level": None})  # fmt: skip
            if series:
                title = chart.title + (f": {what}" if len(chart.series) > 1 else "")
                words = chart.words.replace("the figure at the top", "the accuracy in the table")
                charts.append({**describe(chart, series), "key": key, "title": title, "words": words})
    return charts, [{axis: [line.get(axis) for line in log] for axis in X_AXES} for log in logs]


def _axes_of(runs: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, str]:
    """The x axes along which some curve has places."""
    return {key: words for key, words in X_AXES.items() if any(v is not None for run in runs for v in run[key])}


def _settings(arms: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """The settings in which arms differ, and those that all share."""
    settings = [arm.get("settings") or {} for arm in arms]
    names = list(dict.fromkeys(name for own in settings for name in own))
    counts = {name: Counter(str(own.get(name, "")) for own in settings) for name in names}
    differing = [name for name in names if len(counts[name]) > 1]
    return differing, {name: settings[0].get(name) for name in names if name not in differing}


def _environment(environment: Mapping[str, Any]) -> dict[str, str]:
    def words(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{key} {words(item)}" for key, item in value.items())
        return ", ".join(map(words, value)) if isinstance(value, list) else str(value)

    return {
        key.replace("_", " "): words(value) for key, value in environment.items() if value not in (None, "", {}, [])
    }
