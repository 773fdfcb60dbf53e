"""Guided stop-gradient in a plain PyTorch loop: SimSiam on scikit-learn's digits, in seconds on a CPU.

    python examples/plain_loop.py

With two views an image the loss pairs up the images of the batch by itself. The authors' form has four views, and any
permutation says which image's views 2 and 3 an image's views 0 and 1 are held against: `train(num_views=4)`.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18
from torchvision.transforms import v2

import stopgrad

DIM = 128
augment = v2.Compose([v2.RandomAffine(10, translate=(0.1, 0.1)), v2.RandomResizedCrop(32, scale=(0.5, 1.0))])


def train(num_steps: int = 20, num_views: int = 2, batch_size: int = 32) -> tuple[nn.Module, list[float]]:
    """Train a ResNet-18; returns it with the loss of each step."""
    images = torch.tensor(load_digits().images, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1) / 16
    backbone = resnet18()
    backbone.fc = nn.Identity()
    projector = nn.Sequential(
        nn.Linear(512, DIM), nn.BatchNorm1d(DIM), nn.ReLU(),
        nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM, affine=False),
    )  # fmt: skip
    predictor = nn.Sequential(nn.Linear(DIM, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, DIM))
    criterion = stopgrad.GuidedStopGradientLoss()
    model = nn.ModuleList([backbone, projector, predictor])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    losses: list[float] = []
    while len(losses) < num_steps:
        for batch in DataLoader(images, batch_size, shuffle=True, drop_last=True):
            # Image by image: a transform draws its parameters once a call.
            views = [torch.stack([augment(image) for image in batch]) for _ in range(num_views)]
            z = [projector(backbone(view)) for view in views]
            p = [predictor(projection) for projection in z]
            # For two views, None draws pairs; stopgrad.choose_partners does it by hand.
            partners = None if num_views == 2 else stopgrad.random_permutation(len(batch))
            # The targets, second, are detached in there.
            loss = criterion(torch.stack(p, dim=1), torch.stack(z, dim=1), partners)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == num_steps:
                break
    return backbone, losses


def main() -> None:
    """Train a little and say how the loss went."""
    torch.manual_seed(0)
    _, losses = train()
    print(f"loss {losses[0]:+.3f} at the first step, {losses[-1]:+.3f} at step {len(losses)}")


if __name__ == "__main__":
    main()
