"""DINO: what the EMA encoder assigns an image to is predicted by the online one from another view.

Source: arXiv 2104.14294. Of the authors' recipe this leaves out the warm-up of the teacher's temperature, the frozen
last layer of the first epoch and the clipping of gradients.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from stopgrad.config import Config
from stopgrad.methods.protocol import Initial, LocalViews, Method, Views, initial_backbone, projector_of
from stopgrad.nets.backbones import num_features
from stopgrad.nets.ema import cast_once, ema_copy, ema_update
from stopgrad.nets.heads import Prototypes
from stopgrad.nets.norms import statistics_kept
from stopgrad.objective.cosine import at_least_fp32
from stopgrad.objective.distillation import self_distillation
from stopgrad.schedules import rising

CENTRE_MOMENTUM = 0.9


class DINO(Method):
    """Self-distillation without labels: each view predicts the teacher's assignment of every other view.

    Local views, which the teacher does not see, predict that of every view.

    Args:
        backbone: images to pooled features.
        projector: features to projections.
        prototypes: projections to logits.
        ema_momentum, ema_rises: of the teacher, as for `Siamese`.
    """

    takes_local_views = True
    centre: Tensor

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, prototypes: Prototypes, *, ema_momentum: float,
        ema_rises: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = nn.Sequential(backbone, projector, prototypes)
        self.target_encoder = ema_copy(self.encoder)
        self.ema_momentum, self.ema_rises = ema_momentum, ema_rises
        self.register_buffer("centre", torch.zeros(len(prototypes.weight)))

    def forward(
        self, views: Views, generator: Generator, local: LocalViews | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of a batch, mean over pairs of a student's view and another one that the teacher sees.

        The teacher's logits move the centre afterwards. Local views leave the running statistics alone.
        """
        with torch.no_grad(), statistics_kept(self.target_encoder), cast_once(self.target_encoder):
            teacher = [at_least_fp32(self.target_encoder(view)) for view in views]
        student = [self.encoder(view) for view in views]
        if local is not None:
            with statistics_kept(self.encoder):
                student += self.encoder(local.flatten(0, 1)).unflatten(0, local.shape[:2]).unbind()
        pairs = [(s, t) for s in range(len(student)) for t in range(len(teacher)) if s != t]
        loss = sum((self_distillation(student[s], teacher[t], self.centre) for s, t in pairs),
                   start=self.centre.new_zeros(()))  # fmt: skip
        if self.training:
            # A new tensor: the graph of the loss still holds the old one.
            self.centre = self.centre.lerp(self.batch.mean(torch.cat(teacher).mean(dim=0)), 1 - CENTRE_MOMENTUM)
        return self.batch.part(loss / len(pairs)), {}

    def after_step(self, progress: float) -> None:
        """Move the teacher toward the online encoder."""
        momentum = rising(self.ema_momentum, progress) if self.ema_rises else self.ema_momentum
        ema_update(self.target_encoder, self.encoder, momentum)


def build_dino(config: Config, initial: Initial | None = None) -> DINO:
    """The module a config describes; arguments and errors as for `build_siamese`."""
    network, objective = config.network, config.objective
    backbone = initial_backbone(config, initial)
    projector = projector_of(config, num_features(backbone))
    prototypes = Prototypes(network.projection_dim, objective.prototypes)
    rises = objective.ema_schedule == "cosine"
    return DINO(backbone, projector, prototypes, ema_momentum=objective.ema_momentum, ema_rises=rises)
