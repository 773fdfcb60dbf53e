"""Other ways to keep from collapse: what they reach with the same images, network and length.

Rates of each are a scale's (`scales.py`); what was tried is told in docs/studies.md.
"""

from stopgrad.studies.questions.accuracy import FASTSIAM_ALL, UNTRAINED, siamese
from stopgrad.studies.study import Arm, Comparison, Study

SIMCLR = Arm("simclr", "SimCLR", {"method": "simclr"})
MOCO = Arm("moco", "MoCo v2", {"method": "moco", "projector_norm": "none", "ema_momentum": 0.99})
VICREG = Arm("vicreg", "VICReg", {"method": "vicreg", "projector_norm": "hidden"})
_OTHERS = (
    SIMCLR,
    MOCO,
    Arm("barlow_twins", "Barlow Twins", {"method": "barlow_twins"}),
    VICREG,
    Arm("dino", "DINO, without multi-crop",
        {"method": "dino", "projector_norm": "hidden", "ema_schedule": "cosine"}),
)  # fmt: skip

STUDY = Study(
    "rivals",
    "What do other ways to keep from collapse reach?",
    "Guided stop-gradient repels negatives implicitly. Beside it: explicit negatives (SimCLR, MoCo), projections kept "
    "uncorrelated (Barlow Twins, VICReg), centring and sharpening (DINO), a predictor alone (SimSiam, BYOL, FastSiam).",
    (
        UNTRAINED,
        siamese("simsiam", "symmetric", 2, "symmetric"),
        siamese("simsiam", "nearest_views", 2, "GSG on two views"),
        siamese("byol", "symmetric", 2, "symmetric"),
        siamese("byol", "nearest_views", 2, "GSG on two views"),
        FASTSIAM_ALL,
        *_OTHERS,
    ),
    (
        *(Comparison("simsiam_gsg_2v", arm, "equal passes") for arm in ("simclr", "barlow_twins", "vicreg")),
        *(Comparison("byol_gsg_2v", arm, "equal passes") for arm in ("moco", "dino")),
    ),
)  # fmt: skip
