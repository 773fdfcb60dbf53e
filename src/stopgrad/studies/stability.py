"""How far seeds and learning rates move each method, and where it breaks."""

from stopgrad.studies.main import NAMES, siamese
from stopgrad.studies.study import Arm, Study

RATES = (0.25, 1.0, 4.0, 16.0)
GUIDES = {"symmetric": "symmetric", "random_views": "random source", "nearest_views": "GSG on two views"}


def _at(arm: Arm, rate: float) -> Arm:
    if rate == 1:
        return arm
    return Arm(f"{arm.name}_lr{rate:g}", f"{arm.words}, {rate:g} x learning rate",
               {**arm.settings, "lr_factor": rate}, arm.epochs)  # fmt: skip


STUDY = Study(
    "stability",
    "How far do seeds and learning rates move each method?",
    "The same arms over a grid of learning rates, on the same seeds. It also tells whether a verdict of the other "
    "studies hangs on the rate.",
    [_at(siamese(m, guide, 2, words), rate) for rate in RATES for m in NAMES for guide, words in GUIDES.items()],
)
