"""Guided stop-gradient in a LightningModule: SimSiam with a timm backbone, on scikit-learn's digits, in seconds.

    pip install lightning
    python examples/lightning_loop.py

On several devices each process pairs the images of its own part of the batch, as the authors do. Their form has four
views, and any permutation says which image's views 2 and 3 an image's views 0 and 1 are held against:
`train(num_views=4)`.
"""

import timm
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import stopgrad

try:
    import lightning as L
except ImportError:
    import pytorch_lightning as L

DIM = 128


class Views(Dataset):
    """Digits, several random views of each."""

    def __init__(self, num_views: int) -> None:
        self.images = torch.tensor(load_digits().images, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1) / 16
        self.num_views = num_views
        self.augment = v2.Compose(
            [v2.RandomAffine(10, translate=(0.1, 0.1)), v2.RandomResizedCrop(32, scale=(0.5, 1.0))]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return [self.augment(self.images[index]) for _ in range(self.num_views)]


class GuidedSimSiam(L.LightningModule):
    """SimSiam, each image's source view chosen by the guide."""

    def __init__(self, backbone: str = "resnet18", lr: float = 0.02) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = timm.create_model(backbone, num_classes=0)
        width = self.backbone.num_features
        self.projector = nn.Sequential(
            nn.Linear(width, DIM), nn.BatchNorm1d(DIM), nn.ReLU(),
            nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM, affine=False),
        )  # fmt: skip
        self.predictor = nn.Sequential(nn.Linear(DIM, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, DIM))
        self.criterion = stopgrad.GuidedStopGradientLoss("nearest_views")

    def training_step(self, views: list[Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        z = [self.projector(self.backbone(view)) for view in views]
        p = [self.predictor(projection) for projection in z]
        partners = None if len(views) == 2 else stopgrad.random_permutation(len(views[0]))
        # The targets, second, are detached in there.
        loss = self.criterion(torch.stack(p, dim=1), torch.stack(z, dim=1), partners)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD, as SimSiam has it."""
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9, weight_decay=5e-4)


def train(num_steps: int = 20, num_views: int = 2, batch_size: int = 32) -> GuidedSimSiam:
    """Fit the module; its loss is in `trainer.callback_metrics`."""
    model = GuidedSimSiam()
    trainer = L.Trainer(
        max_steps=num_steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    # The last batch would be smaller, and BatchNorm needs two images.
    trainer.fit(model, DataLoader(Views(num_views), batch_size, shuffle=True, drop_last=True))
    return model


def main() -> None:
    """Train a little and say how the loss went."""
    L.seed_everything(0)
    model = train()
    print(f"loss {model.trainer.callback_metrics['loss']:+.3f} at step {model.global_step}")


if __name__ == "__main__":
    main()
