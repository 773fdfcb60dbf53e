"""Claim 3: without a predictor SimSiam and BYOL collapse, and guided they train."""

from stopgrad.studies.questions.accuracy import NAMES, UNTRAINED, siamese
from stopgrad.studies.study import Arm, Comparison, Study

GUIDES = {"symmetric": "symmetric", "random_views": "random source", "nearest_views": "GSG on two views"}


def without_predictor(arm: Arm) -> Arm:
    """The same arm, each projection its own prediction."""
    return Arm(f"{arm.name}_bare", f"{arm.words}, no predictor", {**arm.settings, "predictor": False}, arm.epochs)


RATES = (0.25, 4.0)
_WITH = [siamese(m, guide, 2, words) for m in NAMES for guide, words in GUIDES.items()]
_WITHOUT = [without_predictor(arm) for arm in _WITH]
# Whether the verdict hangs on the rate; chance is left out.
_RATED = [arm.at_rate(rate) for rate in RATES for arm in _WITHOUT if arm.settings["guide"] != "random_views"]

STUDY = Study(
    "no-predictor",
    "Does guiding prevent collapse without a predictor?",
    "Targets from the online encoder (SimSiam) or its moving average (BYOL), with and without a predictor. Collapse is "
    "judged in eval mode by standard deviation and effective rank of features and projections.",
    (UNTRAINED, *_WITH, *_WITHOUT, *_RATED),
    (
        *(
            Comparison(f"{m}_gsg_2v_bare", f"{m}_{rival}", question)
            for m in NAMES
            for rival, question in (
                ("symmetric_2v_bare", "guided and not, no predictor"),
                ("random_2v_bare", "the guide, beside chance, no predictor"),
                ("gsg_2v", "what the predictor is worth, guided"),
            )
        ),
        *(
            Comparison(
                f"{m}_gsg_2v_bare_lr{rate:g}",
                f"{m}_symmetric_2v_bare_lr{rate:g}",
                f"guided and not, no predictor, {rate:g} x learning rate",
            )
            for rate in RATES
            for m in NAMES
        ),
    ),
    figures=("knn_top1", "linear_top1", "projection_std"),
)
