"""How far a set of features has collapsed, without labels.

Judge on eval-mode features and by several measures together: a constant is seen by `feature_std`, two opposite
points or a line by `effective_rank` alone.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def feature_std(features: Float[Tensor, "image dim"]) -> float:
    """Feature standard deviation: of L2-normalised features, per dimension, averaged, times sqrt(dim).

    Returns:
        0 for a constant, about 1 for directions drawn uniformly; at least 2 images, or ValueError.

    Source: SimSiam (arXiv 2011.10566), section 4.1, figure 2 (there without the factor sqrt(dim)).
    """
    _check(features)
    normalised = F.normalize(features.float(), dim=1)
    return float(normalised.std(dim=0, unbiased=False).mean() * math.sqrt(features.shape[1]))


def effective_rank(features: Float[Tensor, "image dim"]) -> float:
    """Exponential of the entropy of the singular-value distribution of centred, L2-normalised features.

    Features whose variation is lost in rounding (below 1e-4 of their length) count as constant, so that noise around
    one point is not taken for a full rank.

    Returns:
        From 1 (a constant, or a line) to min(images - 1, dim); at least 2 images, or ValueError.

    Source: Roy and Vetterli, "The effective rank" (EUSIPCO 2007); used for collapse in RankMe (arXiv 2210.02885).
    """
    variances = _component_variances(features)
    if variances is None:
        return 1.0
    singular = variances.sqrt()
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


def first_component_share(features: Float[Tensor, "image dim"]) -> float:
    """Share of the variance of L2-normalised features that lies along their first principal component.

    Returns:
        Up to 1 (a line, or a constant, as for `effective_rank`); at least 2 images, or ValueError.
    """
    variances = _component_variances(features)
    return 1.0 if variances is None else float(variances.max() / variances.sum())


def dead_dimensions(features: Float[Tensor, "image dim"]) -> Bool[Tensor, "dim"]:
    """Dimensions that hardly vary: a standard deviation below 1% of the root mean square over dimensions.

    Measured on features as they are, not L2-normalised, because a common length would make every dimension vary. Where
    the features as a whole vary by less than 1e-4 of their length, all are dead.

    Returns:
        bool `[dim]`; at least 2 images, or ValueError.
    """
    _check(features)
    double = features.double()
    variance = double.var(dim=0, unbiased=False)
    if variance.sum() <= 1e-8 * double.square().sum(dim=1).mean():
        return torch.ones_like(variance, dtype=torch.bool)
    return variance < 1e-4 * variance.mean()


def alignment(first: Float[Tensor, "image dim"], second: Float[Tensor, "image dim"]) -> float:
    """Mean squared distance between the L2-normalised features of two views of the same images.

    Returns:
        From 0 (the views agree) to 4.

    Source: Wang and Isola (arXiv 2005.10242), equation 2 with alpha = 2.
    """
    first, second = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
    return float((first - second).square().sum(dim=1).mean())


def mean_squared_distance(features: Float[Tensor, "image dim"]) -> float:
    """Mean squared distance between the L2-normalised features of different images.

    Returns:
        From 0 (a constant) to 4; at least 2 images, or ValueError.
    """
    _check(features)
    normalised = F.normalize(features.double(), dim=1)
    num_images = len(normalised)
    return float(2 * (num_images - normalised.sum(dim=0).square().sum() / num_images) / (num_images - 1))


def uniformity(features: Float[Tensor, "image dim"]) -> float:
    """Logarithm of the mean Gaussian potential exp(-2 |x - y|^2) over pairs of different images.

    Returns:
        From 0 (a constant) down toward -4 (spread over the sphere); at least 2 images, or ValueError.

    Source: Wang and Isola (arXiv 2005.10242), equation 3 with t = 2.
    """
    _check(features)
    normalised = F.normalize(features.float(), dim=1)
    num_images = len(normalised)
    total = 0.0
    for rows in normalised.split(1024):
        squared = (2 - 2 * rows @ normalised.T).clamp(min=0)
        total += float((-2 * squared).exp().double().sum())
    # The potential of an image with itself is 1.
    return math.log(max(total - num_images, 1e-300) / (num_images * (num_images - 1)))


def _component_variances(features: Tensor) -> Tensor | None:
    """Variances along the principal components of L2-normalised features, times images; None for a constant."""
    _check(features)
    normalised = F.normalize(features.double(), dim=1)
    centred = normalised - normalised.mean(dim=0)
    if centred.norm() <= 1e-4 * normalised.norm() or not centred.any():
        return None
    # The eigenvalues of the smaller Gram matrix are the squared singular values.
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    return torch.linalg.eigvalsh(gram).clamp(min=0)


def _check(features: Tensor) -> None:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features of shape {tuple(features.shape)}: needs [image, dim] with at least 2 images.")
