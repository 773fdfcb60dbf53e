"""Guides: which of an image's views carry the gradient (the sources), decided on targets alone.

A guide maps detached targets to source weights `[image, view]`, which sum to one over an image's views. Views
come in pairs (0, 1) and (2, 3): a view's prediction is pulled toward the target of the other view of its pair.
Symmetric weights give SimSiam and BYOL, one-hot weights guided stop-gradient.

To add a guide: one function here and one line in `GUIDES`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from stopgrad.objective.cosine import at_least_fp32
from stopgrad.objective.hardness import distances_to_batch, weights_of

Targets = Float[Tensor, "image view dim"]
Partners = Int[Tensor, "image"]
SourceWeights = Float[Tensor, "image view"]
Guide = Callable[[Targets, Partners | None, Generator | None], SourceWeights]


def symmetric(target: Targets, partners: Partners | None = None, generator: Generator | None = None) -> SourceWeights:
    """Every view is a source with the same weight: SimSiam and BYOL as published."""
    num_images, num_views = _shape(target)
    return target.new_full((num_images, num_views), 1 / num_views, dtype=torch.float32)


def random_views(
    target: Targets, partners: Partners | None = None, generator: Generator | None = None
) -> SourceWeights:
    """One source of each pair of views by a fair coin: the control that a guide has to beat."""
    num_images, num_views = _shape(target)
    num_pairs = num_views // 2
    device = generator.device if generator is not None else torch.device("cpu")
    coin = torch.randint(2, (num_images, num_pairs), generator=generator, device=device).to(target.device)
    return torch.stack((1 - coin, coin), dim=2).flatten(1).float() / num_pairs


def nearest_views(
    target: Targets, partners: Partners | None = None, generator: Generator | None = None
) -> SourceWeights:
    """The closest cross-image pair of views become the sources of their images (the paper's guide)."""
    return _guided(target, partners, sign=1.0)


def farthest_views(
    target: Targets, partners: Partners | None = None, generator: Generator | None = None
) -> SourceWeights:
    """The farthest cross-image pair become the sources (the paper's reversed ablation)."""
    return _guided(target, partners, sign=-1.0)


def nearest_of_all(
    target: Targets, partners: Partners | None = None, generator: Generator | None = None
) -> SourceWeights:
    """One source an image, of all its views: of the closest cross-image pair of any views of two mutual partners."""
    num_images, num_views = target.shape[:2]
    if partners is None:
        raise ValueError("this guide needs `partners`: which image is held against which.")
    index = torch.arange(num_images, device=partners.device)
    first = index[index < partners].to(target.device)
    second = partners[index < partners].to(target.device)
    target = at_least_fp32(target.detach())
    distances = (target[first][:, :, None] - target[second][:, None]).square().sum(dim=-1).flatten(1)
    choice = distances.argmin(dim=1)
    # An image left over by the matching stays symmetric.
    weights = target.new_zeros((num_images, num_views), dtype=torch.float32)
    weights[(partners == index).to(target.device)] = 1 / num_views
    weights[first, choice // num_views] = 1
    weights[second, choice % num_views] = 1
    return weights


def random_of_all(
    target: Targets, partners: Partners | None = None, generator: Generator | None = None
) -> SourceWeights:
    """One source an image, any of its views by chance: the control of `nearest_of_all`."""
    num_images, num_views = target.shape[:2]
    device = generator.device if generator is not None else torch.device("cpu")
    source = torch.randint(num_views, (num_images,), generator=generator, device=device).to(target.device)
    return torch.nn.functional.one_hot(source, num_views).float()


def nearest_in_batch(
    target: Targets, partners: Partners | None = None, generator: Generator | None = None
) -> SourceWeights:
    """One source an image, of all its views: the one nearest to any view of any other image of the batch."""
    return weights_of(distances_to_batch(target))


GUIDES: Mapping[str, Guide] = MappingProxyType(
    {
        "symmetric": symmetric,
        "nearest_views": nearest_views,
        "random_views": random_views,
        "farthest_views": farthest_views,
        "nearest_of_all": nearest_of_all,
        "random_of_all": random_of_all,
        "nearest_in_batch": nearest_in_batch,
    }
)
PARTNERED = frozenset({"nearest_views", "farthest_views", "nearest_of_all"})
ONE_OF_ALL = frozenset({"nearest_of_all", "random_of_all", "nearest_in_batch", "nearest_in_memory"})
"""Guides that choose one source among all views of an image, not one of each pair; partners must be mutual."""


@torch.no_grad()
def cross_image_distances(target: Targets, partners: Partners) -> tuple[Tensor, Tensor, Tensor]:
    """Squared Euclidean distances between the views of image a and those of its reference b, one row a choice.

    With two views a pair of mutual partners makes one row (an image left over makes none); with four, image i's
    views 0 and 1 are held against the views 2 and 3 of image `partners[i]`. float32 at least: in half precision
    near-ties flip.

    Args:
        target: projections `[image, view, dim]` with 2 or 4 views, raw (not normalised).
        partners: `[image]`, on the CPU or the targets' device.

    Returns:
        Images a `[row]`, images b `[row]`, and distances `[row, 4]` in the order a1b1, a1b2, a2b1, a2b2.

    Source: arXiv 2503.09058, section 3; order of the four as in the authors' code.
    """
    target = at_least_fp32(target)
    index = torch.arange(len(partners), device=partners.device)
    if target.shape[1] == 2:
        first = index[index < partners].to(target.device)
        second = partners[index < partners].to(target.device)
        views_a, views_b = target[first], target[second]
    else:
        first, second = index.to(target.device), partners.to(target.device)
        views_a, views_b = target[:, :2], target[second, 2:]
    distances = (views_a[:, :, None] - views_b[:, None]).square().sum(dim=-1)
    return first, second, distances.flatten(1)


@torch.no_grad()
def _guided(target: Targets, partners: Partners | None, sign: float) -> SourceWeights:
    num_images, num_views = _shape(target)
    if num_views not in (2, 4):
        raise ValueError(f"{num_views} views: this guide takes 2 (mutual partners) or 4 (any permutation).")
    if partners is None:
        raise ValueError("this guide needs `partners`: which image is held against which.")
    first, second, distances = cross_image_distances(target, partners)
    # argmin takes the first of equals, as the authors' code does.
    choice = (sign * distances).argmin(dim=1)
    share = 2 / num_views
    weights = target.new_zeros((num_images, num_views), dtype=torch.float32)
    if num_views == 2:
        # An image left over by the matching stays symmetric.
        alone = (partners == torch.arange(num_images, device=partners.device)).to(target.device)
        weights[alone] = 0.5
        weights[first, choice // 2] = share
        weights[second, choice % 2] = share
    else:
        weights[first, choice // 2] = share
        weights[second, 2 + choice % 2] = share
    return weights


def _shape(target: Tensor) -> tuple[int, int]:
    if target.ndim != 3 or target.shape[1] < 2 or target.shape[1] % 2:
        raise ValueError(
            f"targets of shape {tuple(target.shape)}: needs [image, view, dim] with an even number of views."
        )
    return target.shape[0], target.shape[1]
