"""SimSiam and BYOL, symmetric or guided: one module, two independent choices.

Where targets come from (the online encoder, or its moving average) and how each image's loss is weighted over its
views (the guide).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from stopgrad.config import Config
from stopgrad.methods.choice import SourceChoice, choice_of
from stopgrad.methods.protocol import Initial, LocalViews, Method, Views, initial_backbone, projector_of
from stopgrad.metrics.guidance import guide_balance, guide_margin
from stopgrad.nets.backbones import num_features
from stopgrad.nets.ema import cast_once, ema_copy, ema_update
from stopgrad.nets.heads import build_predictor
from stopgrad.nets.norms import statistics_kept
from stopgrad.nets.stochastic import silenced
from stopgrad.objective.cosine import at_least_fp32, negative_cosine
from stopgrad.objective.guided import (
    guided_loss,
    local_loss,
    multi_crop_loss,
    other_views,
    share_of_views,
    source_views,
)
from stopgrad.schedules import rising

Chosen = tuple[Float[Tensor, "image view dim"], Float[Tensor, "image view"]]
"""Targets and source weights."""


class Siamese(Method):
    """A Siamese network with stop-gradient.

    Args:
        backbone: images to pooled features; has `num_features`.
        projector: features to projections.
        predictor: projections to predictions, or None: the projection is its own prediction.
        ema_momentum: None takes targets from the online encoder (SimSiam); a number takes them from its moving
            average with this momentum (BYOL).
        ema_rises: whether the momentum rises to 1 along half a cosine.
        choice: how sources are chosen; None: by `nearest_views` with mutual partners.
        source_first: choose the sources on targets encoded without gradient, and run the online encoder on the sources
            alone. An image that a matching leaves over then has its first view for a source.
        targets: `other`, the other view of the pair, or `mean_of_others`, the mean of all other views.
    """

    takes_local_views = True

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module | None, *,
        ema_momentum: float | None = None, ema_rises: bool = False, choice: SourceChoice | None = None,
        source_first: bool = False, targets: str = "other",
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = nn.Sequential(backbone, projector)
        self.predictor = predictor
        self.target_encoder = None if ema_momentum is None else ema_copy(self.encoder)
        self.ema_momentum, self.ema_rises = ema_momentum, ema_rises
        self.choice = choice or SourceChoice("nearest_views")
        self.source_first, self.targets = source_first, targets

    def forward(
        self, views: Views, generator: Generator, local: LocalViews | None = None, given: Chosen | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of a batch of views and, of multi-crop, `local` ones; and diagnostics where `watch` is set.

        Views pass one after another, not concatenated: BatchNorm statistics are per view, as in the papers. Local views
        have no part in the choice; they pass together, as in SwAV. `given` are targets and source weights of these
        images, where they are a part of a batch that `choose_ahead` has seen.
        """
        if self.source_first:
            return self._forward_source_first(views, generator, local, given)
        projections = [self.encoder(view) for view in views]
        prediction = at_least_fp32(torch.stack([self._predict(z) for z in projections], dim=1))
        diagnostics: dict[str, Tensor] = {}
        if given is not None:
            target, weights = given
        else:
            own = self.target_encoder is None
            target = at_least_fp32(torch.stack(projections, 1).detach()) if own else self._encode_targets(views)
            weights, diagnostics = self._choose(target, generator)
        if local is None:
            loss = guided_loss(prediction, target, weights, self.targets)
        else:
            loss = multi_crop_loss(prediction, target, weights, self._predict_local(local), self.targets)
        return self.batch.part(loss), diagnostics

    def _forward_source_first(
        self, views: Views, generator: Generator, local: LocalViews | None, given: Chosen | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same loss from fewer passes: the encoder that is trained sees the sources alone.

        Under BatchNorm's batch statistics it is not the same computation: they are of the chosen views, and the others
        give no gradient through them. One forward a step moves the running statistics: that of the first pair's
        sources.
        """
        (target, weights), diagnostics = self.choose_ahead([views], generator) if given is None else (given, {})
        others = other_views(target, self.targets)
        group = len(views) if self.choice.one_of_all else 2
        loss = torch.zeros((), device=target.device)
        if local is not None:
            loss = local_loss(self._predict_local(local), target, weights, self.targets)
            weights = weights * share_of_views(weights, len(local))[:, None]
        for first, source in zip(range(0, len(views), group), source_views(weights, group).T, strict=True):
            share = weights[:, first : first + group].sum(dim=1)
            images, row = _chosen(views, source, first, group), torch.arange(len(target), device=target.device)
            if not self.choice.keeps_all:
                # Images without weight need no pass. (Elsewhere counting them would wait for the device.)
                row = share.nonzero().squeeze(1)
                images = images[row]
            with nullcontext() if first == 0 else statistics_kept(self):
                prediction = self._predict(self.encoder(images))
            distances = negative_cosine(prediction, others[row, source[row]])
            loss = loss + (share[row] * distances).sum() / len(target)
        return self.batch.part(loss), diagnostics

    def choose_ahead(
        self, parts: Sequence[Tensor], generator: Generator
    ) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
        """Targets `[image, view, dim]` and source weights of a batch, before it is trained on; and diagnostics.

        Args:
            parts: the batch's views, some images each: they are encoded one after another, the choice is of all.
            generator: as for `forward`.
        """
        target = torch.cat([self._encode_targets(views) for views in parts])
        weights, diagnostics = self._choose(target, generator)
        return (target, weights), diagnostics

    def _predict(self, projection: Tensor) -> Tensor:
        prediction: Tensor = projection if self.predictor is None else self.predictor(projection)
        return prediction

    def _predict_local(self, local: LocalViews) -> Float[Tensor, "image local dim"]:
        """Predictions of the local views, from one pass that leaves the running statistics alone.

        Those are for images as the evaluation sees them, to which the larger views are nearer.
        """
        with statistics_kept(self):
            prediction = self._predict(self.encoder(local.flatten(0, 1)))
        return at_least_fp32(prediction.unflatten(0, local.shape[:2]).transpose(0, 1))

    @torch.no_grad()
    def _encode_targets(self, views: Views) -> Tensor:
        """Projections of all views without gradient, by the EMA encoder if there is one, else by the online one.

        They are normalised by their batch and leave the running statistics alone; the EMA encoder's are never used.
        """
        encoder = self.encoder if self.target_encoder is None else self.target_encoder
        with statistics_kept(encoder), cast_once(encoder), silenced(encoder):
            return at_least_fp32(torch.stack([encoder(view) for view in views], dim=1))

    def _choose(self, target: Tensor, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The guide's source weights, and diagnostics where `watch` is set.

        It chooses among the images of all processes; the weights are of one's own.
        """
        target = self.batch.gather(target)
        weights, partners = self.choice(target, generator, self.progress)
        diagnostics = {}
        if self.watch:
            diagnostics["guide_balance"] = guide_balance(weights)
            if partners is not None and not self.choice.one_of_all:
                diagnostics["guide_margin"] = guide_margin(target, partners)
        return self.batch.own(weights), diagnostics

    def param_groups(self) -> list[dict[str, Any]]:
        """Encoder and predictor."""
        groups = super().param_groups()
        if self.predictor is not None:
            groups.append({"name": "predictor", "params": list(self.predictor.parameters())})
        return groups

    def after_step(self, progress: float) -> None:
        """Move the target encoder, where there is one, toward the online one.

        Args:
            progress: share of the run that is done, in 0..1.
        """
        if self.target_encoder is None or self.ema_momentum is None:
            return
        momentum = rising(self.ema_momentum, progress) if self.ema_rises else self.ema_momentum
        ema_update(self.target_encoder, self.encoder, momentum)


def _chosen(views: Views, source: Tensor, first: int, group: int) -> Tensor:
    """Each image's source view `[image channel height width]`, of the group of views that begins at `first`."""
    images = views[first]
    for view in range(first + 1, first + group):
        images = torch.where((source == view).view(-1, 1, 1, 1), views[view], images)
    return images


def build_siamese(config: Config, initial: Initial | None = None) -> Siamese:
    """The module a config describes, with weights drawn from torch's global generator.

    Args:
        config: the run's.
        initial: the backbone's weights to start from, of the online and the EMA encoder alike.

    Raises:
        ValueError: a backbone that does not exist, or initial weights that do not fit it.
    """
    network, objective = config.network, config.objective
    backbone = initial_backbone(config, initial)
    dim = num_features(backbone)
    choice = choice_of(config)
    return Siamese(
        backbone,
        projector_of(config, dim),
        build_predictor(network.projection_dim, network.predictor_width) if network.predictor else None,
        ema_momentum=objective.ema_momentum if objective.method == "byol" else None,
        ema_rises=objective.ema_schedule == "cosine",
        choice=choice,
        # Where every view is a source, none can be left out.
        source_first=objective.source_first and choice.one_hot,
        targets=objective.targets,
    )
