"""Where everything stands in the static figure of a study: an SVG, templates/study.svg."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stopgrad.report.parts.forest import MINUS, NONE, UNDECIDED, figure_name, forest_of, ticks

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def clean(text: Any) -> str:
    """Without the characters that XML forbids."""
    return _UNPRINTABLE.sub("", str(text))


def wrapped(text: Any, width: float, size: float, most: int, *, bold: bool = False) -> list[str]:
    """Text in at most `most` lines that stay within `width`, judged by a wide font; what is too long ends in ….

    Nothing here can measure the reader's own font, so that letters are taken as wide as in the widest usual one.
    """
    lines, line = [], ""
    for word in clean(text).split():
        parts = list(_pieces(word, width, size, bold))
        for part in parts:
            joined = f"{line} {part}" if line else part
            if line and _width(joined, size, bold) > width:
                lines.append(line)
                line = part
            else:
                line = joined
    lines += [line] if line else []
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and _width(last + "…", size, bold) > width:
        last = last[:-1]
    return [*lines[: most - 1], last.rstrip(" ,;:") + "…"]


def _pieces(word: str, width: float, size: float, bold: bool) -> Iterator[str]:
    piece = ""
    for letter in word:
        if piece and _width(piece + letter, size, bold) > width:
            yield piece
            piece = ""
        piece += letter
    yield piece


def _width(text: str, size: float, bold: bool = False) -> float:
    ems = sum(
        1.0 if letter in "mwMW%@…—" or unicodedata.east_asian_width(letter) in "WF"
        else 0.40 if letter in " ijlftrI.,:;'|!()[]/-"
        else 0.74 if letter.isupper() else 0.62
        for letter in text
    )  # fmt: skip
    return ems * size * (1.12 if bold else 1.0)


WIDTH, MARGIN, GAP = 1000, 20, 28
SIZE, LINE = 12, 15
"""Of the labels: the letters, and from line to line."""
_LABEL_LINES, _PAD = 3, 9
COLLAPSES = ("collapsed", "partly_collapsed")


def figure_values(found: Mapping[str, Any]) -> dict[str, Any]:
    """The figure's lines, dots and words at their places, for its template.

    Args:
        found: a study's results, with None for what is not finite.
    """
    arms = found.get("arms") or ()
    numbers = {arm.get("name"): place + 1 for place, arm in enumerate(arms)}
    shown = [c for c in found.get("comparisons") or () if str(c.get("figure") or "knn_top1") == "knn_top1"]
    half = (WIDTH - 2 * MARGIN - GAP) / 2 if shown else WIDTH - 2 * MARGIN
    title = wrapped(found.get("title") or f"Study {found.get('study', '')}", WIDTH - 2 * MARGIN, 17, 2, bold=True)
    notes = [str(found[key]) for key in ("images", "protocol") if found.get(key)]
    about = [line for note in notes for line in wrapped(note, WIDTH - 2 * MARGIN, 11, 2)]
    partial = ""
    if not found.get("complete", True):
        partial = f"partial: {found.get('num_done', '?')} of {found.get('num_cells', '?')} cells"
    top = 24 + 22 * len(title) + 14 * len(about) + (17 if partial else 0) + 38
    left = _arms_panel(arms, MARGIN, half)
    right = _forest_panel(shown, numbers, MARGIN + half + GAP, half) if shown else None
    height = (
        max(sum(row["height"] for row in panel["rows"]) for panel in (left, right) if panel) if arms or shown else 30
    )
    for panel in (left, right):
        if panel:
            _stand(panel["rows"], top, height)
    resolution = found.get("resolution")
    foot = "Dots: seeds. Bar: mean ± std." if any(len(row["dots"]) > 1 for row in left["rows"]) else "Dots: seeds."
    if any(row["untrained"] is not None for row in left["rows"]):
        foot += " Open ring: the untrained network."
    if left["pixels"]:
        foot += " Dashed line: raw pixels."
    if any(row["off"] for row in left["rows"]):
        foot += " Arrow: below the scale."
    right_foot = "Paired by seed, with 95% intervals; numbers are those of the arms." if right else ""
    if right and resolution is not None:
        right_foot += f" Differences under {100 * resolution:.1f} points cannot be told here."
    if right and any(row["cut_low"] or row["cut_high"] for row in right["rows"]):
        right_foot += " Arrow: the interval extends further."
    feet = [wrapped(foot, half, 11, 2), wrapped(right_foot, half, 11, 2)]
    return {
        "width": WIDTH, "height": round(top + height + 44 + 14 * max(map(len, feet)), 1), "size": SIZE, "line": LINE,
        "margin": MARGIN, "title": title, "about": about, "partial": partial, "left": left, "right": right, "top": top,
        "bottom": top + height, "feet": feet, "clean": clean,
        "description": clean(str(found.get("question") or found.get("title") or "A study's figures.")),
    }  # fmt: skip


def _fallen_words(arm: Mapping[str, Any]) -> str:
    """How far the arm's collapses went, in a word: all the way only if each of them did."""
    verdicts = arm.get("verdicts") or {}
    return "collapsed" if verdicts.get("collapsed") and not verdicts.get("partly_collapsed") else "collapsing"


def _arms_panel(arms: Sequence[Mapping[str, Any]], begin: float, width: float) -> dict[str, Any]:
    label_width = 200 if width < 600 else 380
    plot, end = begin + label_width + 12, begin + width - 78
    figures = [(arm.get("figures") or {}).get("knn_top1") or {} for arm in arms]
    values = [[100 * v for v in own.get("values") or () if v is not None] for own in figures]
    pixels = {round(arm["pixels_knn"], 4) for arm in arms if arm.get("pixels_knn") is not None}
    line = 100 * pixels.pop() if len(pixels) == 1 else None
    untrained = [None if arm.get("untrained_knn") is None else 100 * arm["untrained_knn"] for arm in arms]
    stats = [_mean_std(own) for own in figures]
    fallen = [sum((arm.get("verdicts") or {}).get(state) or 0 for state in COLLAPSES) for arm in arms]
    low, high = _scale(values, stats, [*untrained, line], fallen)

    def x(value: float | None) -> float | None:
        return None if value is None else round(plot + (end - plot) * (max(value, low) - low) / (high - low), 1)

    rows = []
    for place, arm in enumerate(arms):
        label = wrapped(arm.get("words") or arm.get("name") or "", label_width - 22, SIZE, _LABEL_LINES)
        stat = stats[place]
        # An arm that fell off the scale is an arrow at its end; its mean stands beside it.
        is_off = stat is not None and stat[0] < low
        rows.append({
            "height": LINE * max(len(label), 2 if fallen[place] else 1) + _PAD, "label": label, "number": place + 1,
            "name": clean(arm.get("words") or arm.get("name") or ""), "dots": [x(v) for v in values[place] if v >= low],
            "mean": x(stat[0]) if stat and not is_off else None,
            "off": plot - 10 if is_off else None, "untrained": x(untrained[place]),
            "bar": [x(stat[0] + way * stat[1]) for way in (-1, 1)] if stat and stat[1] and not is_off else None,
            "text": _told(figures[place]),
            "note": f"{fallen[place]} {_fallen_words(arm)}" if fallen[place] else "" if stat
            else "failed" if arm.get("failed") else "no figure" if arm.get("figures") else "not run",
        })  # fmt: skip
    return {"begin": begin, "plot": plot, "end": end, "right": begin + width, "rows": rows, "pixels": x(line),
            "label": begin + 22, "title": f"{figure_name('knn_top1')} top-1 accuracy, %",
            "ticks": [(x(v), f"{v:g}") for v in ticks(low, high, 6 if width < 600 else 10)]}  # fmt: skip


def _forest_panel(
    comparisons: Sequence[Mapping[str, Any]], numbers: Mapping[Any, int], begin: float, width: float
) -> dict[str, Any]:
    label_width = 190
    plot, end = begin + label_width + 10, begin + width - 44
    forest = forest_of(comparisons, 100)

    def x(at: float | None) -> float | None:
        return None if at is None else round(plot + (end - plot) * at, 1)

    rows = []
    for comparison, row in zip(comparisons, forest["rows"], strict=True):
        arm, rival = comparison.get("arm"), comparison.get("rival")
        pair = f" {MINUS} ".join(f"arm {numbers[name]}" if name in numbers else str(name) for name in (arm, rival))
        key = str(comparison.get("figure") or "knn_top1")
        pair += f", {figure_name(key)}" if key != "knn_top1" else ""
        label = wrapped(comparison.get("question") or "", label_width, SIZE, _LABEL_LINES)
        pairs = wrapped(pair, label_width, 11, 1)
        verdict = clean(comparison.get("verdict") or "")
        known = row["difference"] is not None
        rows.append({
            "height": LINE * (len(label) + len(pairs)) + _PAD, "label": label, "pair": pairs,
            "colour": row["colour"] if known else UNDECIDED,
            "at": x(row["at"]), "begin": x(row["begin"]), "end": x(row["end"]), "cut_low": row["cut_low"],
            "cut_high": row["cut_high"], "text": f"{row['difference']:+.1f}".replace("-", MINUS) if known else NONE,
            "name": clean(f"{arm} against {rival}: {verdict}"), "verdict": verdict,
        })  # fmt: skip
    return {"begin": begin, "plot": plot, "end": end, "right": begin + width, "rows": rows, "zero": x(forest["zero"]),
            "title": "Differences, points", "ticks": [(x(tick["at"]), tick["words"]) for tick in forest["ticks"]],
            "legend": list(dict.fromkeys((row["verdict"], row["colour"]) for row in rows
                                           if row["verdict"]))}  # fmt: skip


def _told(figures: Mapping[str, Any]) -> str:
    stat, has_std = _mean_std(figures), figures.get("std") is not None
    return f"{stat[0]:.1f}" + (f" ± {stat[1]:.1f}" if has_std else "") if stat else ""


def _mean_std(figures: Mapping[str, Any]) -> tuple[float, float] | None:
    if figures.get("mean") is None:
        return None
    return 100 * figures["mean"], 100 * (figures.get("std") or 0.0)


def _scale(
    values: Sequence[Sequence[float]], stats: Sequence[tuple[float, float] | None], levels: Sequence[float | None],
    fallen: Sequence[int],
) -> tuple[float, float]:  # fmt: skip
    """The accuracies' scale; collapsed arms are left off it where they would squeeze all others together."""

    def ends(kept: Sequence[int]) -> tuple[float, float] | None:
        own = [v for place in kept for v in values[place]] + [v for v in levels if v is not None]
        own += [v for p in kept if (s := stats[p]) for v in (s[0] - s[1], s[0] + s[1])]
        return (min(own), max(own)) if own else None

    every = ends(range(len(values))) or (0.0, 100.0)
    upright = ends([place for place, num in enumerate(fallen) if not num]) if any(v for v in values) else None
    low, high = every
    if upright is not None and 0 < upright[1] - upright[0] < 0.7 * (high - low) and high == upright[1]:
        low = upright[0]
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _stand(rows: Sequence[dict[str, Any]], top: float, height: float) -> None:
    """Give each row its middle: spread out over the height, but not by more than half its own."""
    natural = sum(row["height"] for row in rows)
    share = min(1.5, height / natural) if natural else 1.0
    for row in rows:
        row["middle"] = round(top + row["height"] * share / 2, 1)
        top += row["height"] * share
