"""Guided stop-gradient with Lightly's parts: BYOL by its heads, transforms and EMA, with this loss in place of its own.

    pip install "stopgrad[peers]"
    python examples/lightly_loop.py

Targets come from the moving average, so the guide looks at its projections. Lightly's transform makes two views. For
the authors' form with four, use `MultiViewTransform` with four transforms and pass `partners=random_permutation(n)`.
"""

import copy

import torch
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18

import stopgrad


class GuidedBYOL(nn.Module):
    """BYOL, each image's source view chosen by the guide."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet18()
        self.backbone.fc = nn.Identity()
        self.projection_head = BYOLProjectionHead(512, 256, 128)
        self.prediction_head = BYOLPredictionHead(128, 256, 128)
        self.target = nn.Sequential(copy.deepcopy(self.backbone), copy.deepcopy(self.projection_head))
        deactivate_requires_grad(self.target)
        self.criterion = stopgrad.GuidedStopGradientLoss()

    def forward(self, views: list[Tensor]) -> Tensor:
        """The loss of a batch."""
        p = [self.prediction_head(self.projection_head(self.backbone(view))) for view in views]
        with torch.no_grad():
            z = [self.target(view) for view in views]
        return self.criterion(torch.stack(p, dim=1), torch.stack(z, dim=1))

    def update_target(self, momentum: float) -> None:
        """Move the target toward the online encoder."""
        update_momentum(self.backbone, self.target[0], m=momentum)
        update_momentum(self.projection_head, self.target[1], m=momentum)


class Digits(Dataset):
    """scikit-learn's digits as Pillow images, transformed."""

    def __init__(self, transform: BYOLTransform) -> None:
        self.images = [Image.fromarray((image * 15).astype("uint8")).convert("RGB") for image in load_digits().images]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.images[index])


def train(num_steps: int = 20, batch_size: int = 32) -> tuple[GuidedBYOL, list[float]]:
    """Train a ResNet-18; returns the model with the loss of each step."""
    # A digit mirrored is no digit, and blur leaves nothing of 8 x 8 pixels.
    options = {"input_size": 32, "min_scale": 0.5, "hf_prob": 0.0, "gaussian_blur": 0.0}
    transform = BYOLTransform(BYOLView1Transform(**options), BYOLView2Transform(**options))
    loader = DataLoader(Digits(transform), batch_size, shuffle=True, drop_last=True)
    model = GuidedBYOL()
    optimizer = torch.optim.SGD((q for q in model.parameters() if q.requires_grad), lr=0.05, momentum=0.9)
    losses: list[float] = []
    while len(losses) < num_steps:
        for views in loader:
            loss = model(views)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.update_target(0.99)
            losses.append(loss.item())
            if len(losses) == num_steps:
                break
    return model, losses


def main() -> None:
    """Train a little and say how the loss went."""
    torch.manual_seed(0)
    _, losses = train()
    print(f"loss {losses[0]:+.3f} at the first step, {losses[-1]:+.3f} at step {len(losses)}")


if __name__ == "__main__":
    main()
