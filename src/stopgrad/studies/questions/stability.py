"""How far seeds and learning rates move each method, and where it breaks."""

from stopgrad.studies.questions.accuracy import NAMES, siamese
from stopgrad.studies.questions.no_predictor import GUIDES
from stopgrad.studies.questions.rivals import MOCO, SIMCLR
from stopgrad.studies.study import Comparison, Study

RATES = (0.25, 1.0, 4.0, 16.0)


def _study() -> Study:
    plain = [*(siamese(m, guide, 2, words) for m in NAMES for guide, words in GUIDES.items()), SIMCLR, MOCO]
    pairs = [(f"{m}_gsg_2v", f"{m}_{rival}", question) for m in NAMES for rival, question in (
        ("random_2v", "the guide, beside chance"), ("symmetric_2v", "guided, beside symmetric"))]  # fmt: skip
    return Study(
        "stability",
        "How far do seeds and learning rates move each method?",
        "The same arms over a grid of learning rates, on the same seeds. It also tells whether a verdict of the other "
        "studies hangs on the rate.",
        [arm.at_rate(rate) for rate in RATES for arm in plain],
        [
            Comparison(f"{arm}{at}", f"{rival}{at}", f"{question}, {rate:g} x learning rate")
            for rate in RATES
            for at in ("" if rate == 1 else f"_lr{rate:g}",)
            for arm, rival, question in pairs
        ],
    )


STUDY = _study()
