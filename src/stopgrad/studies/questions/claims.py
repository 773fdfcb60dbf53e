"""The paper's claims in long schedules: blocks of arms, the most valuable first.

`claims-rates` chooses each arm's learning rate for `claims`: of three, at an eighth of the length, by the held-out
images, on a seed of its own. An arm keeps the scale's rate unless another is better by more than seeds differ, two
points; such a one stands in a scale's `of_arm`. Without that margin, twice the rate was chosen for guided SimSiam, for
0.9 points, and the first whole schedule collapsed at it. The last block follows that up.
"""

from dataclasses import replace

from stopgrad.studies.questions.accuracy import FASTSIAM_ALL, UNTRAINED, siamese
from stopgrad.studies.questions.guide import SYMMETRIC_PASSES
from stopgrad.studies.questions.no_predictor import without_predictor
from stopgrad.studies.questions.rivals import SIMCLR, VICREG
from stopgrad.studies.study import Arm, Comparison, Study

RATES = (0.5, 1.0, 2.0)
LENGTH_FOR_RATES = 1 / 8
# Passes an image and epoch of SimSiam with four views, and of BYOL: what the longer arms of their blocks may spend.
_SIMSIAM_FOUR, _BYOL_FOUR = 12, 2 * SYMMETRIC_PASSES


def _siamese_arms(method: str) -> list[Arm]:
    return [
        siamese(method, "symmetric", 2, "symmetric"),
        siamese(method, "nearest_views", 4, "GSG on four views, as published", partners="permutation"),
        siamese(method, "random_views", 4, "four views, random sources"),
        siamese(method, "symmetric", 2, "symmetric", epochs=2.0),
    ]


def _source_first(arm: Arm, words: str) -> Arm:
    passes = 5
    return replace(
        arm, name=f"{arm.name}_first", words=f"BYOL, {words} on two views, sources encoded first",
        settings={**arm.settings, "source_first": True}, epochs=_BYOL_FOUR / passes,
    )  # fmt: skip


_SIMSIAM = _siamese_arms("simsiam")
_BARE = [without_predictor(arm) for arm in (*_SIMSIAM[:3], siamese("simsiam", "nearest_views", 2, "GSG on two views"))]
_BYOL = [
    *_siamese_arms("byol"),
    _source_first(siamese("byol", "nearest_views", 2, ""), "GSG"),
    _source_first(siamese("byol", "random_views", 2, ""), "random source"),
]
_RIVALS = [
    Arm("half_bare", "BYOL, GSG, the most decided half of the images, no predictor",
        {"method": "byol", "views": 2, "source_first": True, "guide": "nearest_views", "guide_keep": 0.5,
         "predictor": False}, epochs=_SIMSIAM_FOUR / 3.5),
    FASTSIAM_ALL,
    *(replace(arm, name=f"{arm.name}_2x", words=f"{arm.words}, 2 times the epochs", epochs=2.0)
      for arm in (SIMCLR, VICREG)),
]  # fmt: skip
_TWICE_THE_RATE = [arm.at_rate(2.0) for arm in _SIMSIAM[:3]]
BLOCKS = ([UNTRAINED, *_SIMSIAM], _BARE, _BYOL, _RIVALS, _TWICE_THE_RATE)
_ARMS = [replace(arm, block=number) for number, arms in enumerate(BLOCKS) for arm in arms]


def _comparisons(method: str, end: str = "") -> list[Comparison]:
    guided, chance, symmetric = (f"{method}_{kind}{end}" for kind in ("gsg_4v", "random_4v", "symmetric_2v"))
    return [
        Comparison(guided, symmetric, "the paper's comparison: equal epochs, twice the passes"),
        Comparison(guided, chance, "the guide, beside chance in the same graph"),
    ]


STUDY = Study(
    "claims",
    "Do the paper's claims hold in long schedules?",
    "GSG on four views as published, beside symmetric SimSiam and BYOL at equal epochs (half the passes) and at equal "
    "passes, and beside random sources in the same graph; with and without a predictor. The learning rate of each arm "
    "was tried on the held-out images in schedules an eighth as long (claims-rates); the scale's stands unless another "
    "is better by two points.",
    _ARMS,
    (
        *_comparisons("simsiam"),
        Comparison("simsiam_gsg_4v", "simsiam_symmetric_2v_2x", "equal passes"),
        *_comparisons("simsiam", "_bare"),
        Comparison("simsiam_gsg_2v_bare", "simsiam_symmetric_2v_bare", "equal passes"),
        Comparison("simsiam_gsg_4v_bare", "simsiam_gsg_4v", "what the predictor is worth, guided"),
        *_comparisons("byol"),
        Comparison("byol_gsg_4v", "byol_symmetric_2v_2x", "equal passes"),
        Comparison("byol_gsg_2v_first", "byol_random_2v_first", "the guide, beside chance in the same graph"),
        Comparison("byol_gsg_2v_first", "byol_symmetric_2v_2x", "equal passes"),
        Comparison("byol_gsg_2v_first", "byol_gsg_4v", "equal passes"),
        *(Comparison(arm.name, "simsiam_gsg_4v", "equal passes") for arm in _RIVALS),
        *_comparisons("simsiam", "_lr2"),
    ),
    figures=("knn_top1", "linear_top1", "projection_std"),
    beside=("test",),
)


def _short(arm: Arm, rate: float) -> Arm:
    """An arm at an eighth of its length; never one of the long study's names, which may have rates of their own."""
    at_rate = arm.at_rate(rate)
    return replace(
        at_rate, name=f"{arm.name}_eighth_lr{rate:g}", words=f"{at_rate.words}, an eighth of the length",
        epochs=arm.epochs * LENGTH_FOR_RATES,
    )  # fmt: skip


RATES_STUDY = Study(
    "claims-rates",
    "Which learning rate suits each arm of the study claims?",
    "Half, one and two times the scale's rate, in complete schedules an eighth as long. For choosing, on a seed of its "
    "own: --seeds 1 --first-seed 100.",
    [_short(arm, rate) for arms in BLOCKS[:-1] for arm in arms if arm.name != UNTRAINED.name for rate in RATES],
)
