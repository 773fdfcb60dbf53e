"""What the training loop asks of a method."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from stopgrad.nets.norms import freeze_norms
from stopgrad.nets.stochastic import silence

Views = Float[Tensor, "view image 3 height width"]


class Method(nn.Module, ABC):
    """A method: its call computes one step's loss, and is the one call that data parallelism wraps."""

    encoder: nn.Sequential
    """What is trained: backbone, projector, and whatever a method has after them."""
    watch: bool = True
    """Whether `forward` should compute diagnostics; set by the loop for the steps that are logged."""
    progress: float = 0.0
    """Share of the run that is done, in 0..1; set by the loop before each step."""
    norms_frozen: bool = False
    """Whether the backbone's BatchNorms keep their running statistics and normalise by them while training too."""

    @property
    def backbone(self) -> nn.Module:
        """What is kept."""
        return self.encoder[0]

    @abstractmethod
    def forward(self, views: Views, generator: Generator) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of a batch, and what is worth watching about it (scalars on the device)."""

    @property
    def backbones(self) -> list[nn.Module]:
        """The backbone, and the target's where it has one of its own."""
        target = getattr(self, "target_encoder", None)
        return [self.encoder[0], *([] if target is None else [target[0]])]

    def train(self, mode: bool = True) -> "Method":
        """As for any module, but frozen norms stay in eval mode, and so does what draws at random in an EMA target."""
        super().train(mode)
        if mode:
            target = getattr(self, "target_encoder", None)
            if target is not None:
                silence(target)
            for backbone in self.backbones if self.norms_frozen else ():
                freeze_norms(backbone)
        return self

    def project(self, images: Float[Tensor, "image 3 height width"]) -> tuple[Tensor, Tensor]:
        """Backbone features and projections of images, for the monitors.

        The projector computes in float32 also under autocast: the rounding of bf16 is spread over all dimensions, and
        would pass for the rank of projections that have collapsed to a few.
        """
        features = self.encoder[0](images)
        with torch.autocast(images.device.type, enabled=False):
            return features, self.encoder[1](features.float())

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimizer, each group with a `name`; "predictor" may keep its learning rate."""
        return [{"name": "encoder", "params": [p for p in self.encoder.parameters() if p.requires_grad]}]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Called after each optimizer step, with the share of the run that is done."""
