"""Means over seeds, and differences paired by seed, with what they leave open."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Some seeds' values."""

    mean: float
    std: float | None
    """Sample deviation; None for one value."""
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
        """`better`, `worse`, `not told apart` or `too few seeds`."""
        if self.interval is None or self.n < 3:
            return "too few seeds"
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and sample deviation of one value or more."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), std, tuple(values))


def difference_of(arm: Mapping[int, float], rival: Mapping[int, float]) -> Difference | None:
    """The mean of arm - rival over the seeds both have, with its interval; None where they share none.

    Args:
        arm, rival: seed -> value.
    """
    differences = [arm[seed] - rival[seed] for seed in sorted(arm) if seed in rival]
    if not differences:
        return None
    own = spread_of(differences)
    if own.std is None:
        return Difference(1, own.mean, None)
    n = len(differences)
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * own.std / math.sqrt(n)
    return Difference(n, own.mean, (own.mean - half, own.mean + half))
