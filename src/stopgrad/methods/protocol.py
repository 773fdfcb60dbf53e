"""The interface between the training loop and a method."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from stopgrad.config import Config
from stopgrad.distributed.batch import WholeBatch
from stopgrad.nets.backbones import build_backbone
from stopgrad.nets.heads import build_projector
from stopgrad.nets.norms import freeze_norms
from stopgrad.nets.stochastic import silence

Views = Float[Tensor, "view image channel height width"]
LocalViews = Float[Tensor, "local image channel side side"]


class Method(nn.Module, ABC):
    """A method: its call computes one step's loss, and is the one call that data parallelism wraps."""

    encoder: nn.Sequential
    """What is trained: backbone, projector, and whatever a method has after them."""
    watch: bool = True
    """Whether `forward` should compute diagnostics; set by the loop for the steps that are logged."""
    progress: float = 0.0
    """Share of the run that is done, in 0..1; set by the loop before each step."""
    takes_local_views: bool = False
    """Whether `forward` takes a third argument, `local`: local views `[local image channel side side]`."""
    batch: WholeBatch = WholeBatch()
    """What the images of all processes have to do with each other; set where there are several."""
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

    def project(self, images: Float[Tensor, "image channel height width"]) -> tuple[Tensor, Tensor]:
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


Initial = Mapping[str, Tensor] | nn.Module
"""What a backbone starts from: weights by their names, or a module of the caller's own."""


def initial_backbone(config: Config, initial: Initial | None) -> nn.Module:
    """The backbone a config describes, with weights drawn from torch's global generator or those given.

    Args:
        config: the run's.
        initial: its weights, by their names, or a module to take as it is; None: they are drawn.

    Raises:
        ValueError: a backbone that does not exist, or initial weights that do not fit it.
    """
    if isinstance(initial, nn.Module):
        return initial
    network = config.network
    backbone = build_backbone(
        network.backbone, stem=network.stem, image_size=config.data.image_size, norm=network.norm, pool=network.pool,
        patch_size=network.patch_size, drop_path=network.drop_path, channels=len(config.augmentation.mean),
        any_size=config.objective.local_views > 0,
    )  # fmt: skip
    if initial is not None:
        try:
            backbone.load_state_dict(initial)
        except RuntimeError as error:
            raise ValueError(f"init = {network.init!r} does not fit backbone {network.backbone!r}: {error}") from error
    return backbone


def projector_of(config: Config, dim: int) -> nn.Sequential:
    """The projector a config describes, on features of `dim` dimensions."""
    network = config.network
    return build_projector(
        dim, network.projector_width or dim, network.projection_dim, network.projector_layers,
        norm=network.projector_norm,
    )  # fmt: skip
