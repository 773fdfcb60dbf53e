"""SimSiam and BYOL, symmetric or guided: one module, two independent choices.

Where targets come from (the online encoder, or its moving average) and how each image's loss is weighted over its
views (the guide).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from stopgrad.config import Config
from stopgrad.methods.protocol import Method, Views
from stopgrad.metrics.guidance import guide_balance, guide_margin
from stopgrad.nets.backbones import build_backbone, num_features
from stopgrad.nets.ema import ema_copy, ema_update
from stopgrad.nets.heads import build_predictor, build_projector
from stopgrad.objective.guided import choose_partners, guided_loss, random_permutation
from stopgrad.objective.guides import GUIDES, PARTNERED


class Siamese(Method):
    """A Siamese network with stop-gradient.

    Args:
        backbone: images to pooled features; has `num_features`.
        projector: features to projections.
        predictor: projections to predictions, or None: the projection is its own prediction.
        ema_momentum: None takes targets from the online encoder (SimSiam); a number takes them from its moving
            average with this momentum (BYOL).
        ema_rises: whether the momentum rises to 1 along a half cosine (BYOL, arXiv 2006.07733, section 3.3).
        guide: a name in `GUIDES`.
        partners: `mutual`, `derangement` or `permutation`, for guides that need them.
    """

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module | None, *,
        ema_momentum: float | None = None, ema_rises: bool = False, guide: str = "nearest_views",
        partners: str = "mutual",
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = nn.Sequential(backbone, projector)
        self.predictor = predictor
        self.target_encoder = None if ema_momentum is None else ema_copy(self.encoder)
        self.ema_momentum, self.ema_rises = ema_momentum, ema_rises
        self.guide, self.partners = guide, partners

    @property
    def backbone(self) -> nn.Module:
        """The part that is kept."""
        return self.encoder[0]

    def forward(self, views: Views, generator: Generator) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of a batch of views, and diagnostics where `watch` is set.

        Views pass one after another, not concatenated: BatchNorm statistics are per view, as in the papers.
        """
        projections = [self.encoder(view) for view in views]
        predictions = projections if self.predictor is None else [self.predictor(z) for z in projections]
        prediction = torch.stack(predictions, dim=1).float()
        if self.target_encoder is None:
            target = torch.stack(projections, dim=1).detach().float()
        else:
            with torch.no_grad():
                target = torch.stack([self.target_encoder(view) for view in views], dim=1).float()
        partners = self._choose_partners(target.shape[0], generator)
        weights = GUIDES[self.guide](target, partners, generator)
        diagnostics = {}
        if self.watch:
            diagnostics["guide_balance"] = guide_balance(weights)
            if partners is not None:
                diagnostics["guide_margin"] = guide_margin(target, partners)
        return guided_loss(prediction, target, weights), diagnostics

    def _choose_partners(self, num_images: int, generator: Generator) -> Tensor | None:
        if self.guide not in PARTNERED:
            return None
        if self.partners == "permutation":
            return random_permutation(num_images, generator)
        return choose_partners(num_images, generator, mutual=self.partners == "mutual")

    def project(self, images: Float[Tensor, "image 3 height width"]) -> tuple[Tensor, Tensor]:
        """Backbone features and projections of images, by the online encoder."""
        features = self.encoder[0](images)
        return features, self.encoder[1](features)

    def param_groups(self) -> list[dict[str, Any]]:
        """Encoder and predictor."""
        groups: list[dict[str, Any]] = [{"name": "encoder", "params": list(self.encoder.parameters())}]
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
        momentum = self.ema_momentum
        if self.ema_rises:
            momentum = 1 - (1 - momentum) * (math.cos(math.pi * progress) + 1) / 2
        ema_update(self.target_encoder, self.encoder, momentum)


def build_siamese(config: Config, initial: Mapping[str, Tensor] | None = None) -> Siamese:
    """The module a config describes, with weights drawn from torch's global generator.

    Args:
        config: the run's.
        initial: the backbone's weights to start from, of the online and the EMA encoder alike.

    Raises:
        ValueError: a backbone that does not exist, or initial weights that do not fit it.
    """
    network, objective = config.network, config.objective
    backbone = build_backbone(
        network.backbone,
        stem=network.stem,
        image_size=config.data.image_size,
        pretrained=network.init == "pretrained",
    )
    if initial is not None:
        try:
            backbone.load_state_dict(initial)
        except RuntimeError as error:
            raise ValueError(f"init = {network.init!r} does not fit backbone {network.backbone!r}: {error}") from error
    dim = num_features(backbone)
    partners = objective.partners
    if partners == "auto":
        partners = "mutual" if objective.views == 2 else "derangement"
    return Siamese(
        backbone,
        build_projector(dim, network.projector_width or dim, network.projection_dim, network.projector_layers),
        build_predictor(network.projection_dim, network.predictor_width) if network.predictor else None,
        ema_momentum=objective.ema_momentum if objective.method == "byol" else None,
        ema_rises=objective.ema_schedule == "cosine",
        guide=objective.guide,
        partners=partners,
    )
