"""Training images kept out of training, for choosing settings by."""

import numpy as np

from stopgrad.data.sources import ImageSource, Subset
from stopgrad.errors import ConfigError


def hold_out(train: ImageSource, num: int) -> tuple[Subset, Subset]:
    """The images that stay, and `num` that are taken out: always the same ones, so that seeds can be compared.

    Raises:
        ConfigError: there are not more than `num`.
    """
    if num >= len(train):
        raise ConfigError(f"holdout = {num}: there are only {len(train)} training images.")
    # A seed of its own, so that runs of different seeds hold out the same images.
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(train))
    return Subset(train, np.sort(order[num:]).tolist()), Subset(train, np.sort(order[:num]).tolist())
