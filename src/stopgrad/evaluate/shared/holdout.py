"""Images held out of each class: to test on, or to choose a setting by without any test image."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor, from_numpy

from stopgrad.errors import ConfigError

# Draws for several purposes from one seed have nothing to do with each other.
TO_TEST: tuple[int, ...] = ()
TO_CHOOSE: tuple[int, ...] = (2**34,)
_TO_LEARN: tuple[int, ...] = (2**35,)


def check_seed(seed: int) -> None:
    """Refuse a seed that nothing can be drawn by.

    Raises:
        ConfigError: it is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed = {seed}: must be at least 0.")


def hold_out(
    labels: Int[Tensor, "image"], share: float, seed: int, *, purpose: tuple[int, ...] = TO_CHOOSE
) -> Bool[Tensor, "image"]:
    """Which images to hold out: the same share of each class and at least one, but never a class's only one.

    Args:
        labels: class of each image.
        share: between 0 and 1.
        seed: of the choice.
        purpose: `TO_CHOOSE` a setting on, or `TO_TEST` on.
    """
    return _marked(labels, lambda num: min(max(1, round(share * num)), num - 1), np.random.PCG64([seed, *purpose]))


def check_can_choose(rates: Sequence[float], held: Bool[Tensor, "image"]) -> None:
    """Refuse to choose among learning rates where no image is held out to choose by.

    Raises:
        ConfigError: several rates, and every class has one training image only.
    """
    if len(rates) > 1 and not held.any():
        raise ConfigError(
            f"lr: {len(rates)} rates to choose among, but every class has one training image only, so that none can be "
            "held out to choose by: give one (--lr), or more labelled images."
        )


def draw_share(labels: Int[Tensor, "image"], share: float, seed: int) -> Bool[Tensor, "image"]:
    """Which images to keep for learning with few labels: the same share of each class and at least one.

    Args:
        labels: class of each image.
        share: above 0, at most 1.
        seed: of the choice.
    """
    return _marked(labels, lambda num: max(1, round(share * num)), np.random.PCG64([seed, *_TO_LEARN]))


def _marked(labels: Tensor, count, bits: np.random.PCG64) -> Tensor:  # type: ignore[no-untyped-def]
    rng = np.random.Generator(bits)
    classes = labels.cpu().numpy()
    marked = np.zeros(len(classes), dtype=bool)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        marked[members[: count(len(members))]] = True
    return from_numpy(marked).to(labels.device)
