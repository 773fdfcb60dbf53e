"""Two classifiers on the same images: is the difference in accuracy more than chance?"""

import math
from dataclasses import dataclass

from jaxtyping import Bool
from scipy.special import bdtr, ndtri
from torch import Tensor

LEVEL = 0.05
Z = float(ndtri(1 - LEVEL / 2))
"""Deviations on either side of a normal distribution's mean that hold 95% of it."""


@dataclass(frozen=True)
class Paired:
    """The difference of two accuracies on the same images."""

    num: int
    """Images."""
    gained: int
    """Right now and wrong before."""
    lost: int
    """Wrong now and right before."""
    difference: float
    """Of the accuracies, now minus before, in -1..1."""
    low: float
    high: float
    """95% interval of the difference, in -1..1."""
    p: float
    """McNemar's exact test, two-sided."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `no significant difference`."""
        if self.p >= LEVEL:
            return "no significant difference"
        return "better" if self.gained > self.lost else "worse"

    @property
    def words(self) -> str:
        """The difference in points, with its interval and p."""
        p = f"p = {self.p:.2g}" if self.p >= 0.001 else "p < 0.001"
        return f"{100 * self.difference:+.1f} points, {100 * self.low:+.1f} to {100 * self.high:+.1f}, {p}"


def compare_paired(now: Bool[Tensor, "image"], before: Bool[Tensor, "image"]) -> Paired:
    """Compare two classifiers by which of the same images each has right.

    Args:
        now, before: right or wrong, image by image; at least one image.

    Source: McNemar, Psychometrika 12 (1947), in its exact form, a sign test on the images that the two differ in; the
    interval: Agresti and Min, Statistics in Medicine 24 (2005), half an image added to each of the four cells.
    """
    gained, lost, num = int((now & ~before).sum()), int((~now & before).sum()), len(now)
    differ, total = gained + lost, num + 2
    centre = (gained - lost) / total
    half = Z * math.sqrt(max(0.0, differ + 1 - (gained - lost) ** 2 / total)) / total
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    # The probability of a split of so many coin tosses at least this uneven.
    p = min(1.0, 2 * float(bdtr(min(gained, lost), differ, 0.5)))
    return Paired(num, gained, lost, (gained - lost) / num, low, high, p)
