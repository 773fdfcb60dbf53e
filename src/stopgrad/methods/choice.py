"""The choice of sources while training: a guide with its partners, for all images or some."""

import torch
from torch import Generator, Tensor, nn

from stopgrad.config import Config
from stopgrad.methods.plugins import make_guide, weights_of
from stopgrad.objective.decided import decidedness, distances_to_partner, keep_highest, nearest_of
from stopgrad.objective.device import sent
from stopgrad.objective.guided import choose_partners, random_permutation
from stopgrad.objective.guides import GUIDES, Guide, traits_of
from stopgrad.settings import is_plugin

NUM_TRIED = 8
"""Images that a guide of one's own is tried out on."""


class SourceChoice(nn.Module):
    """From targets to source weights.

    Args:
        guide: a name in `GUIDES`, or a guide of one's own: a function, or a module that is called like one and finds
            the share of the run that is done in its `progress`.
        partners: `mutual`, `derangement` or `permutation`, for guides that need them.
        keep, keep_by: the share of the images that give a gradient: those whose choice is most `decided`, for
            `nearest_views`, or some at `random`, the control.
        name: what errors call a guide of one's own.
    """

    def __init__(
        self, guide: str | Guide, partners: str = "mutual", *, keep: float = 1.0, keep_by: str = "decided",
        name: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.own = not isinstance(guide, str)
        self.guide: Guide = GUIDES[guide] if isinstance(guide, str) else guide
        self.traits = traits_of(self.guide)
        self.partners, self.keep, self.keep_by = partners, keep, keep_by
        self.name = name
        self._checked = False

    @property
    def one_of_all(self) -> bool:
        """Whether one source is chosen among all views, and not one of each pair."""
        return self.traits.sources == "image" or self._decides

    @property
    def _decides(self) -> bool:
        return self.keep < 1 and self.keep_by == "decided"

    @property
    def one_hot(self) -> bool:
        """Whether there is nothing between source and target."""
        return self.traits.sources != "all"

    @property
    def keeps_all(self) -> bool:
        """Whether every image gives a gradient."""
        return self.keep == 1 and self.traits.keep == 1

    @torch.no_grad()
    def forward(self, target: Tensor, generator: Generator, progress: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """Source weights `[image, view]`, and the partners where the guide has any.

        Args:
            target: projections `[image, view, dim]` without gradient.
            generator: decides partners and coins.
            progress: share of the run that is done, in 0..1.

        Raises:
            ConfigError: a guide of one's own that fails at its first batch, or gives no source weights.
        """
        partners = self._choose_partners(len(target), generator) if self.traits.needs_partners else None
        if self._decides:
            assert partners is not None
            distances = distances_to_partner(target, partners)
            return keep_highest(nearest_of(distances), decidedness(distances), self.keep), partners
        if self.own:
            weights = self._ask_own(target, partners, generator, progress)
        else:
            weights = self.guide(target, partners, generator)
        if self.keep < 1:
            score = sent(torch.rand(len(target), generator=generator, device=generator.device), target.device)
            weights = keep_highest(weights, score, self.keep)
        return weights, partners

    # A user's own guide runs as it is, also where the networks are compiled.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _ask_own(self, target: Tensor, partners: Tensor | None, generator: Generator, progress: float) -> Tensor:
        if isinstance(self.guide, nn.Module):
            self.guide.progress = progress  # type: ignore[assignment]
        if self._checked:
            return self.guide(target, partners, generator)
        weights = weights_of(self.name, self.guide, target, partners, generator)
        self._checked = True
        return weights

    def _choose_partners(self, num_images: int, generator: Generator) -> Tensor:
        if self.partners == "permutation":
            return random_permutation(num_images, generator)
        return choose_partners(num_images, generator, mutual=self.partners == "mutual")


def choice_of(config: Config) -> SourceChoice:
    """The choice that a config describes.

    Raises:
        ConfigError: a guide of one's own that cannot be had or made.
    """
    choice = _made(config)
    if choice.own:
        # Another one is tried out, so that what is wrong is said before anything begins, and nothing is remembered.
        generator = torch.Generator().manual_seed(0)
        shape = (NUM_TRIED, config.objective.views, config.network.projection_dim)
        _made(config)(torch.randn(shape, generator=generator), generator)
    return choice


def _made(config: Config) -> SourceChoice:
    o = config.objective
    guide = make_guide(config) if is_plugin(o.guide) else o.guide
    choice = SourceChoice(guide, o.partners, keep=o.guide_keep, keep_by=o.guide_keep_by, name=o.guide)
    if o.partners == "auto":
        choice.partners = "derangement" if o.views == 4 and not choice.one_of_all else "mutual"
    return choice
