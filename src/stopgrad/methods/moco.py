"""MoCo v2: a queue of the EMA encoder's earlier targets serves as negatives.

Source: arXiv 1911.05722 and 2003.04297.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from stopgrad.config import Config
from stopgrad.methods.protocol import Initial, Method, Views, initial_backbone, projector_of
from stopgrad.nets.backbones import num_features
from stopgrad.nets.ema import cast_once, ema_copy, ema_update
from stopgrad.nets.norms import statistics_kept
from stopgrad.objective.contrastive import info_nce
from stopgrad.objective.cosine import at_least_fp32
from stopgrad.objective.device import sent

GROUP = 32
"""Images that share BatchNorm statistics, as on one of the authors' eight devices; half the batch if it is smaller."""


class MoCo(Method):
    """Momentum contrast, both views of each pair in both roles.

    BatchNorm would tell a prediction's own target by the batch they share. So both encoders normalise groups of the
    batch, and the targets' groups are drawn anew (the authors' shuffling, without several devices).

    Args:
        backbone: images to pooled features.
        projector: features to projections.
        ema_momentum: of the encoder that makes the targets.
        queue_size: targets kept as negatives.
        temperature: of the softmax over cosines.
    """

    queue: Tensor
    place: Tensor

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, *, ema_momentum: float, queue_size: int,
        temperature: float, dim: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = nn.Sequential(backbone, projector)
        self.target_encoder = ema_copy(self.encoder)
        self.ema_momentum, self.temperature = ema_momentum, temperature
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, dim), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Views, generator: Generator) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of a batch; its targets join the queue afterwards."""
        # Two at least, where each has two images: shuffled within one group, a target would still be normalised with
        # its own prediction's batch.
        rows, num_images = self.batch.rows(views[0])
        groups = max(min(2, num_images // 2), num_images // GROUP)
        size = math.ceil(num_images / groups)
        targets = []
        for view in views:
            places = torch.randperm(num_images, generator=generator).argsort()[rows]
            targets.append(self._targets(view, places, size, num_images))
        loss = views.new_zeros((), dtype=torch.float32)
        for index, view in enumerate(views):
            parts = view.split(_sizes(rows, size, num_images))
            prediction = at_least_fp32(torch.cat([self.encoder(part) for part in parts]))
            loss = loss + info_nce(prediction, targets[index ^ 1], self.queue, temperature=self.temperature)
        if self.training:
            self._remember(torch.cat([self.batch.gather(target) for target in targets]))
        return self.batch.part(loss / len(views)), {}

    @torch.no_grad()
    def _targets(self, view: Tensor, places: Tensor, size: int, num_images: int) -> Tensor:
        """Targets of one's own images, whose places in the shuffled batch are given; groups are of `size` images."""
        order = places.argsort()
        parts = view[sent(order, view.device)].split(_sizes(places, size, num_images))
        with statistics_kept(self.target_encoder), cast_once(self.target_encoder):
            shuffled = torch.cat([self.target_encoder(part) for part in parts])
        return F.normalize(at_least_fp32(shuffled[sent(order.argsort(), view.device)]), dim=1)

    @torch.no_grad()
    def _remember(self, targets: Tensor) -> None:
        """Overwrite the oldest; of a batch larger than the queue, the last."""
        targets = targets[-len(self.queue) :]
        rows = (self.place + torch.arange(len(targets), device=targets.device)) % len(self.queue)
        # A new tensor: the graph of the loss still holds the old one.
        self.queue = self.queue.index_copy(0, rows, targets)
        self.place = (self.place + len(targets)) % len(self.queue)

    def after_step(self, progress: float) -> None:
        """Move the EMA encoder toward the online one."""
        ema_update(self.target_encoder, self.encoder, self.ema_momentum)


def _sizes(places: Tensor, size: int, num_images: int) -> list[int]:
    """How many of one's own images are in each group of the batch, from their places in it."""
    return torch.bincount(places // size, minlength=math.ceil(num_images / size)).tolist()


def build_moco(config: Config, initial: Initial | None = None) -> MoCo:
    """The module a config describes; arguments and errors as for `build_siamese`."""
    objective = config.objective
    backbone = initial_backbone(config, initial)
    return MoCo(
        backbone, projector_of(config, num_features(backbone)), ema_momentum=objective.ema_momentum,
        queue_size=objective.queue_size, temperature=objective.temperature, dim=config.network.projection_dim,
    )  # fmt: skip
