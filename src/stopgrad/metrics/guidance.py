"""How balanced and how clear a guide's choices are."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stopgrad.objective.guides import cross_image_distances


def guide_balance(weights: Float[Tensor, "image view"]) -> Float[Tensor, ""]:
    """Share of the weight that falls on the first view of each pair.

    Returns:
        In [0, 1]; 0.5 when no view is preferred, as it should be of views drawn alike.
    """
    return weights[:, ::2].sum() / weights.sum()


def guide_margin(target: Float[Tensor, "image view dim"], partners: Int[Tensor, "image"]) -> Float[Tensor, ""]:
    """How much nearer the nearest of the four cross-image distances is than the second nearest.

    Returns:
        Mean over choices of (second - first) / mean of the four, Euclidean; 0 when all four are alike.
    """
    _, _, squared = cross_image_distances(target, partners)
    distances = squared.sqrt()
    nearest = distances.topk(2, dim=1, largest=False).values
    margin = (nearest[:, 1] - nearest[:, 0]) / distances.mean(dim=1).clamp(min=torch.finfo(distances.dtype).tiny)
    return margin.mean()
