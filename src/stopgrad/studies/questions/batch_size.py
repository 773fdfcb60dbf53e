"""Claim 2: small batches work."""

from typing import Any

from stopgrad.studies.questions.rivals import MOCO, SIMCLR
from stopgrad.studies.study import Arm, Comparison, Study

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "simsiam": ("SimSiam", {"method": "simsiam", "guide": "symmetric", "source_first": False}),
    "simsiam_gsg": ("SimSiam, GSG on two views",
                    {"method": "simsiam", "guide": "nearest_views", "source_first": False}),
    "byol": ("BYOL", {"method": "byol", "guide": "symmetric", "source_first": False}),
    "byol_gsg": ("BYOL, GSG on two views", {"method": "byol", "guide": "nearest_views", "source_first": False}),
    **{arm.name: (arm.words, dict(arm.settings)) for arm in (SIMCLR, MOCO)},
}  # fmt: skip
SIZES = {0.25: "a quarter of the batch", 1.0: "the usual batch", 4.0: "four times the batch",
         8.0: "eight times the batch"}  # fmt: skip
BESIDE = "guided, beside symmetric at the same batch"
AT_EQUAL_STEPS = ("simsiam", "simsiam_gsg", "simclr")
SERIES = (
    # How, in words, of which methods, at which sizes beside the usual batch.
    ("", "equal epochs", tuple(METHODS), (0.25, 4.0, 8.0)),
    ("_root", "equal epochs, rate by the square root", tuple(METHODS), (0.25, 4.0)),
    ("_steps", "equal steps", AT_EQUAL_STEPS, (0.25, 4.0)),
)


def _arm(key: str, factor: float, how: str) -> Arm:
    words, own = METHODS[key]
    own = {**own, "batch_factor": factor}
    if own["method"] in ("byol", "moco"):
        # So that the moving average reaches back over as many images at every batch size.
        own["ema_power"] = factor
    name, words, epochs = f"{key}_b{factor:g}{how}", f"{words}, {SIZES[factor]}", 1.0
    if how == "_steps":
        words, epochs = f"{words}, equal steps", factor
    if how == "_root":
        # The rate is scaled linearly with the batch: this makes it the square root.
        words, own["lr_factor"] = f"{words}, rate by the square root", factor**-0.5
    return Arm(name, words, own, epochs)


STUDY = Study(
    "batch-size",
    "Do small batches work?",
    "A quarter of the batch, four times and eight times the batch, at equal epochs; the first two at equal optimizer "
    "steps as well, and with the learning rate scaled by the square root instead of linearly. Doing better with a "
    "smaller batch at equal epochs is not robustness: it takes more steps.",
    [
        *(_arm(key, factor, "") for key in METHODS for factor in SIZES),
        *(_arm(key, factor, how) for how, _, keys, factors in SERIES[1:] for key in keys for factor in factors),
    ],
    [
        Comparison(f"{key}_b{factor:g}{how}", f"{key}_b1", words)
        for how, words, keys, factors in SERIES
        for key in keys
        for factor in factors
    ] + [
        # What the claim is about: whether guiding is worth more where batches are small.
        Comparison(f"{key}_gsg_b{factor:g}{how}", f"{key}_b{factor:g}{how}", f"{BESIDE}, {words}")
        for how, words, keys, factors in SERIES
        for key in ("simsiam", "byol") if key in keys
        for factor in factors
    ] + [
        Comparison(f"{key}_gsg_b1", f"{key}_b1", BESIDE) for key in ("simsiam", "byol")
    ],
)  # fmt: skip
