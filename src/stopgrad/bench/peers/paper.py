"""The paper's protocol, written out plainly: four views by torchvision on Pillow images, and the loss as it reads.

Source: arXiv 2503.09058, section 3; augmentation for CIFAR-10 as in SimSiam (arXiv 2011.10566), appendix D.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

NUM_VIEWS = 4


class FourViews:
    """A Pillow image to four views."""

    def __init__(self, size: int) -> None:
        from torchvision import transforms as T

        self.one: Callable[[Image.Image], Tensor] = T.Compose([
            T.RandomResizedCrop(size, scale=(0.2, 1.0)),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ])  # fmt: skip

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """Four draws."""
        return [self.one(image) for _ in range(NUM_VIEWS)]


def four_view_loss(predictions: list[Tensor], projections: list[Tensor], partners: Tensor) -> Tensor:
    """Guided stop-gradient on views 0, 1 of each image and views 2, 3 of its partner, both `[image, dim]` a view."""
    p, z = predictions, [projection.detach() for projection in projections]
    p_b, z_b = [q[partners] for q in p[2:]], [y[partners] for y in z[2:]]
    distances = torch.stack([(z[i] - z_b[j]).norm(dim=1) for i in range(2) for j in range(2)], dim=1)
    nearest = distances.argmin(dim=1)
    loss_a = torch.where(nearest // 2 == 0, _apart(p[0], z[1]), _apart(p[1], z[0]))
    loss_b = torch.where(nearest % 2 == 0, _apart(p_b[0], z_b[1]), _apart(p_b[1], z_b[0]))
    return (loss_a + loss_b).mean() / 2


def _apart(prediction: Tensor, target: Tensor) -> Tensor:
    return -F.cosine_similarity(prediction, target, dim=1)


class PaperMethod(nn.Module):
    """SimSiam with guided stop-gradient on four views."""

    def __init__(self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.backbone, self.projector, self.predictor = backbone, projector, predictor

    def forward(self, views: list[Tensor]) -> Tensor:
        """The loss of a batch."""
        projections: list[Any] = [self.projector(self.backbone(view)) for view in views]
        predictions = [self.predictor(projection) for projection in projections]
        return four_view_loss(predictions, projections, torch.randperm(len(views[0])))

    def after_step(self) -> None:
        """Nothing moves beside the optimizer."""
