"""What is measured of features without labels: names, meanings, how a figure is written."""

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from stopgrad.metrics.collapse import (
    alignment,
    dead_dimensions,
    effective_rank,
    feature_std,
    first_component_share,
    mean_squared_distance,
    uniformity,
)

MEANINGS: Mapping[str, str] = MappingProxyType({
    "feature_std": "0: one point for all; 1: spread evenly",
    "effective_rank": "directions that the features use",
    "rank_ceiling": "for so many dimensions and images",
    "first_component_share": "of the variance; 100%: all on a line",
    "dead_dimensions": "standard deviation below 1% of the usual",
    "dead_share": "of all dimensions",
    "alignment": "squared distance of two views, 0 to 4",
    "relative_alignment": "of that of images; learning lowers it",
    "uniformity": "0: one point for all; -4: spread evenly",
})  # fmt: skip
NAMES: Mapping[str, str] = MappingProxyType({
    "feature_std": "standard deviation",
    "effective_rank": "effective rank",
    "rank_ceiling": "  at most",
    "first_component_share": "first component",
    "dead_dimensions": "dead dimensions",
    "dead_share": "  share",
    "alignment": "alignment",
    "relative_alignment": "  relative",
    "uniformity": "uniformity",
})  # fmt: skip
"""As tables have them; what is indented belongs to the line above."""
_SHARES = ("first_component_share", "dead_share", "relative_alignment")
_COUNTS = ("dead_dimensions", "rank_ceiling")


def measure(features: Tensor, first: Tensor, second: Tensor) -> dict[str, float]:
    """The measures of features `[image dim]` and of those of two views, by the names of `MEANINGS`."""
    dead = dead_dimensions(features)
    between = alignment(first, second)
    return {
        "feature_std": feature_std(features),
        "effective_rank": effective_rank(features),
        "rank_ceiling": float(min(len(features) - 1, features.shape[1])),
        "first_component_share": first_component_share(features),
        "dead_dimensions": float(dead.sum()),
        "dead_share": float(dead.double().mean()),
        "alignment": between,
        "relative_alignment": between / max(mean_squared_distance(first), 1e-12),
        "uniformity": uniformity(features),
    }


def figure(name: str, value: float) -> str:
    """A measure as text: shares in percent, counts whole."""
    if name in _SHARES:
        return f"{value:.1%}"
    if name in _COUNTS:
        return f"{value:.0f}"
    return f"{value:.1f}" if name == "effective_rank" else f"{value:.3f}"
