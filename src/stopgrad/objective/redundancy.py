"""Losses without negatives, predictor or stop-gradient, which keep the dimensions of projections apart."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stopgrad.objective.cosine import at_least_fp32, product


def barlow_twins(
    first: Float[Tensor, "image dim"], second: Float[Tensor, "image dim"], *, off_diagonal: float = 0.005
) -> Float[Tensor, ""]:
    """The cross-correlation of two views' projections, pulled to the identity.

    Args:
        first, second: projections of two views of each image; standardised over the batch here.
        off_diagonal: weight of the correlations between different dimensions.

    Returns:
        A float32 scalar, at least 0: a sum over dimensions.

    Source: arXiv 2103.03230, equations 1 and 2.
    """
    first, second = (_standardised(at_least_fp32(z)) for z in (first, second))
    correlation = product(first.T, second) / len(first)
    on = (1 - correlation.diagonal()).square().sum()
    return on + off_diagonal * (correlation.square().sum() - correlation.diagonal().square().sum())


def vicreg(
    first: Float[Tensor, "image dim"], second: Float[Tensor, "image dim"], *, invariance: float = 25.0,
    variance: float = 25.0, covariance: float = 1.0,
) -> Float[Tensor, ""]:  # fmt: skip
    """Views alike, each dimension's standard deviation at 1 or above, dimensions uncorrelated.

    Args:
        first, second: projections of two views of each image; at least 2 images.
        invariance, variance, covariance: weights of the three terms.

    Returns:
        A float32 scalar, at least 0.

    Source: arXiv 2105.04906, equations 1 to 6; the variance term is the mean over the two views.
    """
    first, second = at_least_fp32(first), at_least_fp32(second)
    spread, redundancy = first.new_zeros(()), first.new_zeros(())
    for z in (first, second):
        centred = z - z.mean(dim=0)
        spread = spread + F.relu(1 - (centred.var(dim=0) + 1e-4).sqrt()).mean() / 2
        matrix = product(centred.T, centred) / (len(z) - 1)
        redundancy = redundancy + (matrix.square().sum() - matrix.diagonal().square().sum()) / z.shape[1]
    return invariance * F.mse_loss(first, second) + variance * spread + covariance * redundancy


def _standardised(z: Tensor) -> Tensor:
    return (z - z.mean(dim=0)) / (z.var(dim=0, unbiased=False) + 1e-5).sqrt()
