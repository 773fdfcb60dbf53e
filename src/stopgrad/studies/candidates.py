"""Guides that no study found better than those of the product: plug-ins, to repeat the study `guide` and to read.

Each goes by `stopgrad.studies.candidates:NAME`, and has the one value of its parameters that was tried. All look at
distances between projections; the paper's guide is the case of the partner as reference and one-hot weights.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from stopgrad.config import Config
from stopgrad.objective.cosine import at_least_fp32, product
from stopgrad.objective.decided import decidedness, keep_highest, nearest_of
from stopgrad.objective.guides import has_traits, nearest_views, random_views
from stopgrad.schedules import cosine

HALF = 0.5
SOFTNESS, SOFTNESS_AT_START = 0.5, 2.0


@has_traits(needs_partners=True, sources="pair")
def nearest_views_normalised(target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
    """The paper's guide on normalised projections."""
    return nearest_views(F.normalize(target, dim=2), partners, generator)


@has_traits(needs_partners=True, sources="image")
def nearest_of_all(target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
    """One source an image, of all its views: of the closest cross-image pair of any views of two mutual partners."""
    assert partners is not None
    num_images, num_views = target.shape[:2]
    index = torch.arange(num_images, device=partners.device)
    first = index[index < partners].to(target.device)
    second = partners[index < partners].to(target.device)
    target = at_least_fp32(target)
    choice = (target[first][:, :, None] - target[second][:, None]).square().sum(dim=-1).flatten(1).argmin(dim=1)
    # An image left over by the matching stays symmetric.
    weights = target.new_zeros((num_images, num_views), dtype=torch.float32)
    weights[(partners == index).to(target.device)] = 1 / num_views
    weights[first, choice // num_views] = 1
    weights[second, choice % num_views] = 1
    return weights


@has_traits(sources="image")
def random_of_all(target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
    """One source an image, any of its views by chance: the control of `nearest_of_all`."""
    num_images, num_views = target.shape[:2]
    device = generator.device if generator is not None else torch.device("cpu")
    source = torch.randint(num_views, (num_images,), generator=generator, device=device).to(target.device)
    return F.one_hot(source, num_views).float()


@has_traits(sources="image")
def nearest_in_batch(target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
    """One source an image, of all its views: the one nearest to any view of any other image of the batch."""
    return nearest_of(distances_to_batch(target))


@has_traits(sources="image")
def nearest_in_batch_normalised(target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
    """The same on normalised projections."""
    return nearest_of(distances_to_batch(F.normalize(target, dim=2)))


@has_traits(sources="image", keep=HALF)
def decided_half_in_batch(target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
    """The same, for the half of the images whose views' distances to the batch differ most."""
    distances = distances_to_batch(target)
    return keep_highest(nearest_of(distances), decidedness(distances), HALF)


@has_traits(sources="pair", keep=HALF)
def hard_half(target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
    """A random source, for the half of the images whose views' targets lie farthest apart."""
    return keep_highest(random_views(target, partners, generator), disagreement(target), HALF)


def soft_in_batch(target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
    """Weights by the distance of each view to the batch, the nearest the largest."""
    return soft_weights(distances_to_batch(target), SOFTNESS)


class FallingSoftness(nn.Module):
    """As `soft_in_batch`, from soft to one-hot over the run along half a cosine."""

    progress = 0.0

    def __init__(self, config: Config) -> None:
        super().__init__()

    def forward(self, target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
        """Source weights."""
        return soft_weights(distances_to_batch(target), SOFTNESS_AT_START * cosine(self.progress, 1.0))


class NearestInMemory(nn.Module):
    """The view nearest to the latest `queue_size` projections of other images; the batch, where there are none yet.

    The memory is part of the state, so that a run resumes to the bit.
    """

    sources = "image"
    normalised: ClassVar[bool] = False
    softness: ClassVar[float] = 0.0
    neighbours: ClassVar[int] = 1
    skip: ClassVar[int] = 0
    memory: Tensor
    place: Tensor
    filled: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(config.objective.queue_size, config.network.projection_dim))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def forward(self, target: Tensor, partners: Tensor | None, generator: Generator | None) -> Tensor:
        """Source weights; while training, the images' first views are remembered afterwards."""
        if self.normalised:
            target = F.normalize(target, dim=2)
        if int(self.filled):
            bank = self.memory[: int(self.filled)]
            distances = distances_to_bank(target, bank, neighbours=self.neighbours, skip=self.skip)
        else:
            distances = distances_to_batch(target, neighbours=self.neighbours, skip=self.skip)
        if self.training:
            self._remember(target[:, 0])
        return soft_weights(distances, self.softness)

    def _remember(self, projections: Tensor) -> None:
        """Overwrite the oldest."""
        size = len(self.memory)
        projections = projections[-size:].to(self.memory.dtype)
        rows = (self.place + torch.arange(len(projections), device=projections.device)) % size
        self.memory[rows] = projections
        self.place.add_(len(projections)).remainder_(size)
        self.filled.add_(len(projections)).clamp_(max=size)


class NearestInMemoryNormalised(NearestInMemory):
    """The same on normalised projections."""

    normalised = True


class NearestInMemorySkipping(NearestInMemoryNormalised):
    """The nearest five in the mean, after the first five, which are likely of the same kind of image."""

    neighbours, skip = 5, 5


class SoftInMemory(NearestInMemory):
    """Weights by the distance of each view to the memory, the nearest the largest."""

    sources, softness = "all", SOFTNESS


@torch.no_grad()
def distances_to_batch(target: Tensor, *, neighbours: int = 1, skip: int = 0) -> Tensor:
    """Mean squared distance `[image, view]` of each view to the nearest views of all other images of the batch.

    Args:
        target: projections `[image, view, dim]`.
        neighbours: how many count, fewer in a small batch.
        skip: how many of the very nearest are passed over.
    """
    num_images, num_views, _ = target.shape
    flat = at_least_fp32(target).flatten(0, 1)
    distances = _squared(flat, flat)
    image = torch.arange(num_images, device=target.device).repeat_interleave(num_views)
    distances.masked_fill_(image[:, None] == image, torch.inf)
    num_others = (num_images - 1) * num_views
    return _nearest(distances, neighbours, skip, num_others).unflatten(0, (num_images, num_views))


@torch.no_grad()
def distances_to_bank(target: Tensor, bank: Tensor, *, neighbours: int = 1, skip: int = 0) -> Tensor:
    """As `distances_to_batch`, to a bank `[row, dim]` of earlier projections of other images."""
    num_images, num_views, _ = target.shape
    distances = _squared(at_least_fp32(target).flatten(0, 1), at_least_fp32(bank))
    return _nearest(distances, neighbours, skip, len(bank)).unflatten(0, (num_images, num_views))


@torch.no_grad()
def soft_weights(distances: Tensor, softness: float) -> Tensor:
    """Source weights, float32 `[image, view]`: the nearer a view lies to other images, the more it is a source.

    Args:
        distances: `[image, view]`.
        softness: 0 gives the nearest view all the weight; larger values spread it, by a softmax of the distances in
            units of `softness` x their mean deviation within an image.
    """
    if softness == 0:
        return nearest_of(distances)
    unit = (distances - distances.mean(dim=1, keepdim=True)).abs().mean().clamp(min=1e-12)
    return (-distances / (softness * unit)).softmax(dim=1).float()


@torch.no_grad()
def disagreement(target: Tensor) -> Tensor:
    """How far the views of each pair (0, 1), (2, 3), ... lie apart `[image]`: 1 - their cosine, the mean over pairs."""
    unit = F.normalize(at_least_fp32(target), dim=2)
    return 1 - (unit[:, ::2] * unit[:, 1::2]).sum(dim=2).mean(dim=1)


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
