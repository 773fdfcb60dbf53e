"""Guides: which of an image's views carry the gradient (the sources), chosen by the targets alone.

A guide maps detached targets to source weights `[image, view]`, which sum to one over an image's views. Views
come in pairs (0, 1) and (2, 3): a view's prediction is pulled toward the target of the other view of its pair.
Symmetric weights give SimSiam and BYOL, one-hot weights guided stop-gradient.

What a guide needs and gives stands in three attributes, each with a default:

- `needs_partners` (False): whether it is given partners;
- `sources` ("all"): which views may have weight. "all": any; "pair": one of each pair; "image": one of all of an
  image's views. Only the last two leave views out, which is what encoding sources first saves;
- `keep` (1.0): the share of the images that give a gradient.

A guide of one's own is a plug-in and needs no line here (docs/plugins.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from stopgrad.objective.cosine import at_least_fp32
from stopgrad.objective.device import sent

Targets = Float[Tensor, "image view dim"]
Partners = Int[Tensor, "image"]
SourceWeights = Float[Tensor, "image view"]
Guide = Callable[[Targets, Partners | None, Generator | None], SourceWeights]
AnyGuide = TypeVar("AnyGuide", bound=Callable[..., Any])


@dataclass(frozen=True)
class Traits:
    """What a guide needs and gives, as its attributes say."""

    needs_partners: bool = False
    sources: str = "all"
    keep: float = 1.0


def traits_of(guide: Callable[..., Any]) -> Traits:
    """The attributes of a guide, or of a class of guides.

    Raises:
        ValueError: attributes of another kind.
    """
    sources, keep = getattr(guide, "sources", "all"), getattr(guide, "keep", 1.0)
    if sources not in ("all", "pair", "image"):
        raise ValueError(f"sources = {sources!r}: must be 'all', 'pair' or 'image'.")
    if not (isinstance(keep, (int, float)) and 0 < keep <= 1):
        raise ValueError(f"keep = {keep!r}: must be a number above 0, and at most 1.")
    return Traits(bool(getattr(guide, "needs_partners", False)), sources, float(keep))


def has_traits(
    *, needs_partners: bool = False, sources: str = "all", keep: float = 1.0
) -> Callable[[AnyGuide], AnyGuide]:
    """Set a guide's attributes."""
    traits = {"needs_partners": needs_partners, "sources": sources, "keep": keep}

    def put(guide: AnyGuide) -> AnyGuide:
        for name, value in traits.items():
            setattr(guide, name, value)
        return guide

    return put


def symmetric(target: Targets, partners: Partners | None = None, generator: Generator | None = None) -> SourceWeights:
    """Every view is a source with the same weight: SimSiam and BYOL as published."""
    num_images, num_views = _shape(target)
    return target.new_full((num_images, num_views), 1 / num_views, dtype=torch.float32)


@has_traits(sources="pair")
def random_views(
    target: Targets, partners: Partners | None = None, generator: Generator | None = None
) -> SourceWeights:
    """One source of each pair of views by a fair coin: the control that a guide has to beat."""
    num_images, num_views = _shape(target)
    num_pairs = num_views // 2
    device = generator.device if generator is not None else torch.device("cpu")
    coin = sent(torch.randint(2, (num_images, num_pairs), generator=generator, device=device), target.device)
    return torch.stack((1 - coin, coin), dim=2).flatten(1).float() / num_pairs


@has_traits(needs_partners=True, sources="pair")
def nearest_views(
    target: Targets, partners: Partners | None = None, generator: Generator | None = None
) -> SourceWeights:
    """The closest cross-image pair of views become the sources of their images (the paper's guide)."""
    return _guided(target, partners, sign=1.0)


@has_traits(needs_partners=True, sources="pair")
def farthest_views(
    target: Targets, partners: Partners | None = None, generator: Generator | None = None
) -> SourceWeights:
    """The farthest cross-image pair become the sources (the paper's reversed ablation)."""
    return _guided(target, partners, sign=-1.0)


GUIDES: Mapping[str, Guide] = MappingProxyType(
    {
        "symmetric": symmetric,
        "nearest_views": nearest_views,
        "random_views": random_views,
        "farthest_views": farthest_views,
    }
)


@torch.no_grad()
def cross_image_distances(target: Targets, partners: Partners) -> tuple[Tensor, Tensor, Tensor]:
    """Squared Euclidean distances between the views of image a and those of its reference b, one row a choice.

    With two views a pair of mutual partners makes one row (an image left over makes none); with four, image i's
    views 0 and 1 are compared with the views 2 and 3 of image `partners[i]`. float32 at least: in half precision
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
        first = sent(index[index < partners], target.device)
        second = sent(partners[index < partners], target.device)
        views_a, views_b = target[first], target[second]
    else:
        first, second = sent(index, target.device), sent(partners, target.device)
        views_a, views_b = target[:, :2], target[second, 2:]
    distances = (views_a[:, :, None] - views_b[:, None]).square().sum(dim=-1)
    return first, second, distances.flatten(1)


@torch.no_grad()
def _guided(target: Targets, partners: Partners | None, sign: float) -> SourceWeights:
    num_images, num_views = _shape(target)
    if num_views not in (2, 4):
        raise ValueError(f"{num_views} views: this guide takes 2 (mutual partners) or 4 (any permutation).")
    if partners is None:
        raise ValueError("this guide needs `partners`: which image each one is compared with.")
    first, second, distances = cross_image_distances(target, partners)
    # argmin takes the first of equals, as the authors' code does.
    choice = (sign * distances).argmin(dim=1)
    share = 2 / num_views
    weights = target.new_zeros((num_images, num_views), dtype=torch.float32)
    if num_views == 2:
        # An image left over by the matching stays symmetric.
        alone = sent(partners == torch.arange(num_images, device=partners.device), target.device)
        weights.masked_fill_(alone[:, None], 0.5)
    # By one index: where a number is put at two, CUDA is waited for.
    views_of_second = num_views - 2 + choice % 2
    places = torch.cat((num_views * first + choice // 2, num_views * second + views_of_second))
    weights.view(-1).index_fill_(0, places, share)
    return weights


def _shape(target: Tensor) -> tuple[int, int]:
    if target.ndim != 3 or target.shape[1] < 2 or target.shape[1] % 2:
        raise ValueError(
            f"targets of shape {tuple(target.shape)}: needs [image, view, dim] with an even number of views."
        )
    return target.shape[0], target.shape[1]
