"""Gradient from some of the images only: those whose choice of a source is most decided."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stopgrad.objective.cosine import at_least_fp32
from stopgrad.objective.device import sent


@torch.no_grad()
def distances_to_partner(
    target: Float[Tensor, "image view dim"], partners: Int[Tensor, "image"]
) -> Float[Tensor, "image view"]:
    """Squared distance of each view to the nearest view of its image's partner; 0 for an image without one."""
    target = at_least_fp32(target)
    other = target[sent(partners, target.device)]
    return (target[:, :, None] - other[:, None]).square().sum(dim=-1).amin(dim=2)


@torch.no_grad()
def nearest_of(distances: Float[Tensor, "image view"]) -> Float[Tensor, "image view"]:
    """Source weights, float32: one for the view at the least distance, the first of equals."""
    return torch.nn.functional.one_hot(distances.argmin(dim=1), distances.shape[1]).float()


@torch.no_grad()
def decidedness(distances: Float[Tensor, "image view"]) -> Float[Tensor, "image"]:
    """How much nearer to other images the nearest view of each image lies than the next."""
    least = distances.topk(2, dim=1, largest=False).values
    return least[:, 1] - least[:, 0]


@torch.no_grad()
def keep_highest(
    weights: Float[Tensor, "image view"], score: Float[Tensor, "image"], keep: float
) -> Float[Tensor, "image view"]:
    """Source weights of the images with the highest scores; the others get none.

    Args:
        weights: source weights.
        score: of each image.
        keep: share of the images that are kept, in (0, 1], at least one. Their weights then sum to 1 / keep, so that
            the mean over the batch stays 1.
    """
    num_images = len(score)
    num_kept = max(1, round(keep * num_images))
    if num_kept == num_images:
        return weights
    kept = score.topk(num_kept).indices
    return weights * weights.new_zeros(num_images).index_fill_(0, kept, num_images / num_kept)[:, None]
