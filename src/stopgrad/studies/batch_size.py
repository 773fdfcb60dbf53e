"""Claim 2: small batches work."""

from typing import Any

from stopgrad.studies.study import Arm, Comparison, Study

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "simsiam": ("SimSiam", {"method": "simsiam", "guide": "symmetric", "source_first": False}),
    "simsiam_gsg": ("SimSiam, GSG on two views",
                    {"method": "simsiam", "guide": "nearest_views", "source_first": False}),
    "byol": ("BYOL", {"method": "byol", "guide": "symmetric", "source_first": False}),
    "byol_gsg": ("BYOL, GSG on two views", {"method": "byol", "guide": "nearest_views", "source_first": False}),
    "simclr": ("SimCLR", {"method": "simclr"}),
    "moco": ("MoCo v2", {"method": "moco", "projector_norm": "none", "ema_momentum": 0.99}),
}  # fmt: skip
SIZES = {0.25: "a quarter of the batch", 4.0: "four times the batch"}
AT_EQUAL_STEPS = ("simsiam", "simsiam_gsg", "simclr")


def _arm(key: str, factor: float, *, how: str = "") -> Arm:
    words, own = METHODS[key]
    if own["method"] in ("byol", "moco"):
        # So that the moving average reaches back over as many images at every batch size.
        own = {**own, "ema_power": factor}
    name, size = f"{key}_b{factor:g}", SIZES.get(factor, "the usual batch")
    if how == "steps":
        return Arm(f"{name}_steps", f"{words}, {size}, equal steps", {**own, "batch_factor": factor}, factor)
    if how == "root":
        # The rate is scaled linearly with the batch: this makes it the square root.
        own = {**own, "lr_factor": factor**-0.5}
        return Arm(f"{name}_root", f"{words}, {size}, rate by the square root", {**own, "batch_factor": factor})
    return Arm(name, f"{words}, {size}", {**own, "batch_factor": factor})


STUDY = Study(
    "batch-size",
    "Do small batches work?",
    "A quarter of the batch and four times the batch, at equal epochs and at equal optimizer steps, with the learning "
    "rate scaled linearly and by the square root. Doing better with a smaller batch at equal epochs is not robustness: "
    "it takes more steps.",
    [
        *(_arm(key, factor) for key in METHODS for factor in (0.25, 1.0, 4.0)),
        *(_arm(key, factor, how="root") for key in METHODS for factor in SIZES),
        *(_arm(key, factor, how="steps") for key in AT_EQUAL_STEPS for factor in SIZES),
    ],
    [
        Comparison(f"{key}_b{factor:g}{how}", f"{key}_b1", words)
        for how, words in (("", "equal epochs"), ("_root", "equal epochs, rate by the square root"),
                           ("_steps", "equal steps"))
        for key in (AT_EQUAL_STEPS if how == "_steps" else METHODS)
        for factor in SIZES
    ] + [
        # What the claim is about: whether guiding is worth more where batches are small.
        Comparison(f"{key}_gsg_b{factor:g}", f"{key}_b{factor:g}", "guided, beside symmetric at the same batch")
        for key in ("simsiam", "byol")
        for factor in (0.25, 1.0, 4.0)
    ],
)  # fmt: skip
