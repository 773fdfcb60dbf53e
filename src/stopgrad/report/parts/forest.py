"""Comparisons of a study on one scale: differences with their intervals, a line at zero."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"
# Okabe and Ito, "Color Universal Design" (2008): distinguishable for colour-blind readers; the verdict is in words too.
VERDICT_COLOURS = {"better": "#0072b2", "worse": "#c24e00", "no significant difference": "#5f6878"}
UNDECIDED = "#98a1b0"
FIGURES = {
    "knn_top1": "k-NN", "linear_top1": "linear probe", "projection_std": "standard deviation of projections",
    "projection_effective_rank": "effective rank of projections", "feature_std": "standard deviation of features",
    "effective_rank": "effective rank of features",
}  # fmt: skip


def figure_name(key: str) -> str:
    """What a figure is called for people; `SET_knn_top1` is one on another data set."""
    for name, words in FIGURES.items():
        if key.endswith(f"_{name}") and is_accuracy(key):
            return f"{words} on {key.removesuffix(f'_{name}')}"
    return FIGURES.get(key, key.replace("_", " "))


def is_accuracy(key: str) -> bool:
    """Whether a figure is a share of right answers, and so told in points of a percent."""
    return key.endswith("top1")


def forest_of(comparisons: Sequence[Mapping[str, Any]], scale: float) -> dict[str, Any]:
    """Comparisons of one figure on one scale.

    Args:
        comparisons: with `difference` and `interval`, either of which may be None.
        scale: what values are multiplied by: 100 gives points.

    Returns:
        `low` and `high` of the scale, always with zero between; `ticks`; and `rows`, each with `at`, `begin` and `end`
        in 0..1 along the scale (None: unknown), `cut_low` and `cut_high` (the interval goes on beyond the scale) and
        `colour`.
    """
    found = [(_scaled(c.get("difference"), scale), _interval(c.get("interval"), scale)) for c in comparisons]
    low, high = _range(found)

    def place(value: float | None) -> float | None:
        return None if value is None else min(1.0, max(0.0, (value - low) / (high - low)))

    rows = [
        {
            "difference": difference, "interval": interval, "at": place(difference),
            "begin": place(interval[0]) if interval else None, "end": place(interval[1]) if interval else None,
            "cut_low": bool(interval and interval[0] < low), "cut_high": bool(interval and interval[1] > high),
            "colour": VERDICT_COLOURS.get(str(comparison.get("verdict")), UNDECIDED),
        }
        for comparison, (difference, interval) in zip(comparisons, found, strict=True)
    ]  # fmt: skip
    return {
        "low": low, "high": high, "rows": rows, "zero": place(0.0),
        "ticks": [{"at": place(value), "words": signed(value)} for value in ticks(low, high)],
    }  # fmt: skip


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round values from `low` to `high`, at most `most` of them."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= most - 1)
    return [
        round(number * step, 10) for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def signed(value: float) -> str:
    """A tick of a scale of differences, with a proper minus."""
    return "0" if value == 0 else f"{value:+g}".replace("-", MINUS)


def _range(found: Sequence[tuple[float | None, tuple[float, float] | None]]) -> tuple[float, float]:
    """The scale's ends: every difference is on it; an interval that dwarfs the others is cut off."""
    halves = sorted((end - begin) / 2 for _, interval in found if interval for begin, end in [interval])
    differences = [abs(difference) for difference, _ in found if difference is not None]
    reach = max([*differences, 0.0]) * 1.3 + (2 * halves[len(halves) // 2] if halves else 0.0)
    ends = [value for difference, interval in found for value in (difference, *(interval or ())) if value is not None]
    low, high = max(min([*ends, 0.0]), -reach), min(max([*ends, 0.0]), reach)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _scaled(value: Any, scale: float) -> float | None:
    return value * scale if isinstance(value, (int, float)) else None


def _interval(value: Any, scale: float) -> tuple[float, float] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or any(end is None for end in value):
        return None
    return value[0] * scale, value[1] * scale
