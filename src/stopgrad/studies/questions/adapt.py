"""Which method adapts a pretrained backbone best, if any does: all from the same weights, at equal passes.

`adapt-rates` chooses each arm's backbone rate and length for `adapt`, by the held-out images and a seed of its own;
what it chose on a data set is given to `adapt` with `--arm`.
"""

from dataclasses import replace
from typing import Any

from stopgrad.settings import SIAMESE_METHODS
from stopgrad.studies.study import Arm, Comparison, Study

SOURCE_FIRST_PASSES = 5
"""An image's, with one source of two views and an EMA target: what the length of 1 is counted in."""
RATES = (0.25, 1.0, 4.0)
LENGTHS = (1.0, 0.25)
SCALES = ("photos",)


def _arm(name: str, words: str, passes: float, method: str, **settings: Any) -> Arm:
    own: dict[str, Any] = {"method": method, "views": 2, **settings}
    if method in SIAMESE_METHODS:
        own = {"source_first": False, **own}
    return Arm(name, words, own, epochs=SOURCE_FIRST_PASSES / passes)


START = Arm("start", "as it started", {"method": "byol", "guide": "symmetric", "lr": 0.0}, epochs=0.01)
ARMS = (
    _arm("byol_gsg_first", "BYOL, GSG on two views, sources encoded first", 5, "byol", guide="nearest_views",
         source_first=True),
    _arm("byol_random_first", "BYOL, random source, sources encoded first", 5, "byol", guide="random_views",
         source_first=True),
    _arm("byol_symmetric", "BYOL, symmetric", 8, "byol", guide="symmetric"),
    _arm("vicreg", "VICReg", 6, "vicreg"),
    _arm("simclr", "SimCLR", 6, "simclr"),
    _arm("simsiam_symmetric", "SimSiam, symmetric", 6, "simsiam", guide="symmetric"),
    _arm("simsiam_gsg", "SimSiam, GSG on two views", 6, "simsiam", guide="nearest_views"),
    _arm("byol_gsg", "BYOL, GSG on two views", 8, "byol", guide="nearest_views"),
)  # fmt: skip


def at(arm: Arm, rate: float, length: float) -> Arm:
    """An arm at so many times the backbone's rate and so many times its length."""
    share = round(0.2 * rate, 6)
    return replace(
        arm, name=f"{arm.name}_r{rate:g}_l{length:g}",
        words=f"{arm.words}; backbone rate x {rate:g}, length x {length:g}",
        settings={**arm.settings, "backbone_lr": share}, epochs=arm.epochs * length,
    )  # fmt: skip


_GRID = [replace(at(arm, rate, length), block=number)
         for number, length in enumerate(LENGTHS) for rate in RATES for arm in ARMS]  # fmt: skip

RATES_STUDY = Study(
    "adapt-rates",
    "Which backbone rate and length suits each method that adapts a pretrained backbone?",
    "A quarter, one and four times the rate, at the whole length and a quarter of it. For choosing: --seeds 1 "
    "--first-seed 100.",
    [START, *_GRID],
    [Comparison(arm.name, START.name, "beside the start") for arm in _GRID],
    scales=SCALES,
)
STUDY = Study(
    "adapt",
    "Which method adapts a pretrained backbone best, if any does?",
    "All from the same ImageNet weights, BatchNorm frozen, at equal passes or a quarter of them; each with the "
    "backbone rate and length that adapt-rates found on this data set's held-out images, given by --arm.",
    [START, *_GRID],
    [
        *(Comparison(arm.name, START.name, "beside the start") for arm in _GRID),
        *(
            Comparison(f"byol_gsg_first_r{r:g}_l{n:g}", f"{rival.name}_r{s:g}_l{m:g}", "each at its own best")
            for rival in ARMS[1:]
            for r in RATES for n in LENGTHS for s in RATES for m in LENGTHS
        ),
    ],
    beside=("test", "few-label"),
    scales=SCALES,
)  # fmt: skip
