"""The choice of sources while training: a guide with its references."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from stopgrad.objective.guided import choose_partners, random_permutation
from stopgrad.objective.guides import GUIDES, ONE_OF_ALL, PARTNERED
from stopgrad.objective.hardness import (
    decidedness,
    disagreement,
    distances_to_bank,
    distances_to_batch,
    distances_to_partner,
    keep_highest,
    weights_of,
)
from stopgrad.schedules import cosine


class SourceChoice(nn.Module):
    """From targets to source weights.

    Args:
        guide: a name in `GUIDES`, or `nearest_in_batch` or `nearest_in_memory`.
        partners: `mutual`, `derangement` or `permutation`, for guides that need them.
        normalised: whether distances are of normalised projections.
        softness, softness_falls: as for `weights_of`; whether it falls to 0 over the run along half a cosine.
        keep, keep_by: the share of the images that give a gradient: those whose choice is most `decided`, those that
            are `hard`, their views' targets farthest apart, or some at `random`, the control.
        neighbours, skip: as for `distances_to_batch`.
        memory_size, dim: earlier projections that `nearest_in_memory` keeps, and their dimension.
    """

    memory: Tensor
    place: Tensor
    filled: Tensor

    def __init__(
        self, guide: str, partners: str = "mutual", *, normalised: bool = False, softness: float = 0.0,
        softness_falls: bool = False, keep: float = 1.0, keep_by: str = "decided", neighbours: int = 1, skip: int = 0,
        memory_size: int = 4096, dim: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.guide, self.partners, self.normalised = guide, partners, normalised
        self.softness, self.softness_falls = softness, softness_falls
        self.keep, self.keep_by, self.neighbours, self.skip = keep, keep_by, neighbours, skip
        if guide == "nearest_in_memory":
            self.register_buffer("memory", torch.zeros(memory_size, dim))
            self.register_buffer("place", torch.zeros((), dtype=torch.int64))
            self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def one_of_all(self) -> bool:
        """Whether one source is chosen among all views, and not one of each pair."""
        return self.guide in ONE_OF_ALL or self._by_distance

    @property
    def _by_distance(self) -> bool:
        decides = self.keep < 1 and self.keep_by == "decided"
        return self.guide.startswith("nearest_in_") or self.softness > 0 or decides

    @property
    def one_hot(self) -> bool:
        """Whether there is nothing between source and target."""
        return self.guide != "symmetric" and self.softness == 0

    @torch.no_grad()
    def forward(self, target: Tensor, generator: Generator, progress: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """Source weights `[image, view]`, and the partners where the guide has any.

        Args:
            target: projections `[image, view, dim]` without gradient.
            generator: decides partners and coins.
            progress: share of the run that is done, in 0..1.
        """
        if self.normalised:
            target = F.normalize(target, dim=2)
        partners = self._choose_partners(len(target), generator) if self.guide in PARTNERED else None
        if not self._by_distance:
            return self._kept(GUIDES[self.guide](target, partners, generator), target, None, generator), partners
        distances = self._distances(target, partners)
        softness = self.softness * (cosine(progress, 1.0) if self.softness_falls else 1.0)
        weights = weights_of(distances, softness=softness)
        return self._kept(weights, target, distances, generator), partners

    def _kept(self, weights: Tensor, target: Tensor, distances: Tensor | None, generator: Generator) -> Tensor:
        """The weights of the images that give a gradient."""
        if self.keep == 1:
            return weights
        if self.keep_by == "random":
            score = torch.rand(len(target), generator=generator, device=generator.device).to(target.device)
        elif self.keep_by == "hard":
            score = disagreement(target)
        else:
            assert distances is not None
            score = decidedness(distances)
        return keep_highest(weights, score, self.keep)

    def _distances(self, target: Tensor, partners: Tensor | None) -> Tensor:
        """Of each view to the reference: the partner, the batch or the memory."""
        if partners is not None:
            distances = distances_to_partner(target, partners)
        elif self.guide == "nearest_in_batch" or not int(self.filled):
            distances = distances_to_batch(target, neighbours=self.neighbours, skip=self.skip)
        else:
            bank = self.memory[: int(self.filled)]
            distances = distances_to_bank(target, bank, neighbours=self.neighbours, skip=self.skip)
        if self.guide == "nearest_in_memory" and self.training:
            self._remember(target[:, 0])
        return distances

    def _choose_partners(self, num_images: int, generator: Generator) -> Tensor:
        if self.partners == "permutation":
            return random_permutation(num_images, generator)
        return choose_partners(num_images, generator, mutual=self.partners == "mutual")

    def _remember(self, projections: Tensor) -> None:
        """Overwrite the oldest."""
        size = len(self.memory)
        projections = projections[-size:].to(self.memory.dtype)
        rows = (self.place + torch.arange(len(projections), device=projections.device)) % size
        self.memory[rows] = projections
        self.place.add_(len(projections)).remainder_(size)
        self.filled.add_(len(projections)).clamp_(max=size)
