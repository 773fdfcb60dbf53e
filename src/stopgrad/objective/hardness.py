"""How near each view lies to other images, and source weights from it: guides beyond the paper's.

The paper's guide is the special case of the partner as reference and one-hot weights.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stopgrad.objective.cosine import at_least_fp32, product


@torch.no_grad()
def distances_to_partner(
    target: Float[Tensor, "image view dim"], partners: Int[Tensor, "image"]
) -> Float[Tensor, "image view"]:
    """Squared distance of each view to the nearest view of its image's partner; 0 for an image without one."""
    target = at_least_fp32(target)
    other = target[partners.to(target.device)]
    return (target[:, :, None] - other[:, None]).square().sum(dim=-1).amin(dim=2)


@torch.no_grad()
def distances_to_batch(
    target: Float[Tensor, "image view dim"], *, neighbours: int = 1, skip: int = 0
) -> Float[Tensor, "image view"]:
    """Mean squared distance of each view to the nearest views of all other images of the batch.

    Args:
        target: projections.
        neighbours: how many count, fewer in a small batch.
        skip: how many of the very nearest are passed over, as likely to be of the same kind of image.
    """
    num_images, num_views, _ = target.shape
    flat = at_least_fp32(target).flatten(0, 1)
    distances = _squared(flat, flat)
    image = torch.arange(num_images, device=target.device).repeat_interleave(num_views)
    distances.masked_fill_(image[:, None] == image, torch.inf)
    num_others = (num_images - 1) * num_views
    return _nearest(distances, neighbours, skip, num_others).unflatten(0, (num_images, num_views))


@torch.no_grad()
def distances_to_bank(
    target: Float[Tensor, "image view dim"], bank: Float[Tensor, "bank dim"], *, neighbours: int = 1, skip: int = 0
) -> Float[Tensor, "image view"]:
    """As `distances_to_batch`, to a bank of earlier projections of other images."""
    num_images, num_views, _ = target.shape
    distances = _squared(at_least_fp32(target).flatten(0, 1), at_least_fp32(bank))
    return _nearest(distances, neighbours, skip, len(bank)).unflatten(0, (num_images, num_views))


@torch.no_grad()
def weights_of(distances: Float[Tensor, "image view"], *, softness: float = 0.0) -> Tensor:
    """Source weights: the nearer a view lies to other images, the more it is a source.

    Args:
        distances: of each view, from one of the functions above.
        softness: 0 gives the nearest view all the weight; larger values spread it, by a softmax of the distances in
            units of `softness` x their mean deviation within an image.

    Returns:
        float32 `[image, view]`.
    """
    if softness > 0:
        unit = (distances - distances.mean(dim=1, keepdim=True)).abs().mean().clamp(min=1e-12)
        return (-distances / (softness * unit)).softmax(dim=1).float()
    return torch.nn.functional.one_hot(distances.argmin(dim=1), distances.shape[1]).float()


@torch.no_grad()
def decidedness(distances: Float[Tensor, "image view"]) -> Float[Tensor, "image"]:
    """How much nearer to other images the nearest view of each image lies than the next."""
    least = distances.topk(2, dim=1, largest=False).values
    return least[:, 1] - least[:, 0]


@torch.no_grad()
def disagreement(target: Float[Tensor, "image view dim"]) -> Float[Tensor, "image"]:
    """How far the views of each pair (0, 1), (2, 3), ... lie apart: 1 - their cosine, the mean over pairs."""
    unit = torch.nn.functional.normalize(at_least_fp32(target), dim=2)
    return 1 - (unit[:, ::2] * unit[:, 1::2]).sum(dim=2).mean(dim=1)


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


def _squared(first: Tensor, second: Tensor) -> Tensor:
    """Squared Euclidean distances by one matrix product, about the centre of the first so that little cancels."""
    centre = first.mean(dim=0)
    first, second = first - centre, second - centre
    squares = first.square().sum(dim=1)[:, None] + second.square().sum(dim=1)
    return (squares - 2 * product(first, second.T)).clamp_(min=0)


def _nearest(distances: Tensor, neighbours: int, skip: int, num_others: int) -> Tensor:
    """Mean of the nearest few after the skipped; all but the farthest are skipped at most."""
    first = min(skip, max(0, num_others - 1))
    last = min(first + neighbours, num_others)
    if last <= first:
        return distances.new_zeros(len(distances))
    return distances.topk(last, dim=1, largest=False).values[:, first:].mean(dim=1)
