"""Lightly's blocks, put together as its documentation does for CIFAR-10.

Source: https://docs.lightly.ai/self-supervised-learning/examples/simsiam.html and .../byol.html
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad.nets.backbones import num_features

EMA_MOMENTUM = 0.99


def simsiam_views(size: int, *, blur: float = 0.0) -> Any:
    """Its SimSiam augmentation; by default without blur, as it advises for small images (its own default is 0.5)."""
    from lightly.transforms.simsiam_transform import SimSiamTransform

    return SimSiamTransform(input_size=size, gaussian_blur=blur)


def byol_views(size: int) -> Any:
    """Its BYOL augmentation, without blur as it advises for small images."""
    from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    return BYOLTransform(
        view_1_transform=BYOLView1Transform(input_size=size, gaussian_blur=0.0),
        view_2_transform=BYOLView2Transform(input_size=size, gaussian_blur=0.0),
    )


def _projector(dim: int, num_layers: int, width: int) -> nn.Module:
    """Its SimSiam head, which has three layers; of two, the same from its general one."""
    from lightly.models.modules.heads import ProjectionHead, SimSiamProjectionHead

    if num_layers == 3:
        head: nn.Module = SimSiamProjectionHead(dim, width, width)
        return head
    blocks = [
        (dim, width, nn.BatchNorm1d(width), nn.ReLU()),
        (width, width, nn.BatchNorm1d(width, affine=False), None),
    ]
    return ProjectionHead(blocks)


class SimSiamMethod(nn.Module):
    """SimSiam."""

    def __init__(self, backbone: nn.Module, projector_layers: int, width: int, predictor_width: int) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules.heads import SimSiamPredictionHead

        super().__init__()
        self.backbone = backbone
        self.projector = _projector(num_features(backbone), projector_layers, width)
        self.predictor = SimSiamPredictionHead(width, predictor_width, width)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: list[Tensor]) -> Tensor:
        """The loss of a batch of two views."""
        z = [self.projector(self.backbone(view)) for view in views]
        p = [self.predictor(projection) for projection in z]
        loss: Tensor = 0.5 * (self.criterion(p[0], z[1].detach()) + self.criterion(p[1], z[0].detach()))
        return loss

    def after_step(self) -> None:
        """Nothing moves beside the optimizer."""


class BYOLMethod(nn.Module):
    """BYOL, with heads like SimSiam's so that networks are equal."""

    def __init__(self, backbone: nn.Module, projector_layers: int, width: int, predictor_width: int) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules.heads import SimSiamPredictionHead
        from lightly.models.utils import deactivate_requires_grad

        super().__init__()
        self.backbone = backbone
        self.projector = _projector(num_features(backbone), projector_layers, width)
        self.predictor = SimSiamPredictionHead(width, predictor_width, width)
        self.target_backbone, self.target_projector = copy.deepcopy(self.backbone), copy.deepcopy(self.projector)
        deactivate_requires_grad(self.target_backbone)
        deactivate_requires_grad(self.target_projector)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: list[Tensor]) -> Tensor:
        """The loss of a batch of two views."""
        p = [self.predictor(self.projector(self.backbone(view))) for view in views]
        with torch.no_grad():
            z = [self.target_projector(self.target_backbone(view)) for view in views]
        loss: Tensor = 0.5 * (self.criterion(p[0], z[1]) + self.criterion(p[1], z[0]))
        return loss

    def after_step(self) -> None:
        """Move the target toward the online encoder."""
        from lightly.models.utils import update_momentum

        update_momentum(self.backbone, self.target_backbone, m=EMA_MOMENTUM)
        update_momentum(self.projector, self.target_projector, m=EMA_MOMENTUM)
