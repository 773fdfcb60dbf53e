"""The images that a run's page shows: where they are, and one pass of the backbone over a sample of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data import augment
from stopgrad.data.holdout import hold_out
from stopgrad.data.preprocess import Preprocess, shortest_of
from stopgrad.data.sources import IN_MEMORY, ImageSource, Splits, open_images
from stopgrad.data.store import ImageStore
from stopgrad.encoder.features import outputs_in_order
from stopgrad.errors import DataError
from stopgrad.reporter import Reporter

THUMBNAIL = 64


@dataclass(frozen=True)
class RunImages:
    """A run's images: those it was trained on, and those that ask in its k-NN."""

    train: ImageStore
    test: ImageStore | None
    test_name: str = "test"
    """What to call the latter: test, or held-out."""

    @property
    def class_names(self) -> Sequence[str]:
        """The classes, in the order of their numbers; empty without labels."""
        return self.train.source.class_names if len(self.train.source.class_names) > 1 else ()


def open_run_images(run: RunDir, config: Config, data: str | Path | ImageSource | None) -> RunImages:
    """Open a run's images, to be decoded as they are needed.

    Args:
        run, config: the run.
        data: where they are now; None: where the config says.

    Raises:
        ConfigError: gone from where the run had them.
        DataError: no images there.
    """
    if data is None:
        data = run.images_path("--data")
    splits = open_images(data) if isinstance(data, (str, Path)) else Splits(IN_MEMORY, data)
    train: ImageSource = splits.train
    test: ImageSource | None = splits.test
    if config.data.holdout:
        train, test = hold_out(train, config.data.holdout)

    def opened(source: ImageSource) -> ImageStore:
        return ImageStore(source, shortest_of(config), kept=list(range(len(source))))

    return RunImages(opened(train), None if test is None else opened(test), test_name_of(config))


def test_name_of(config: Config) -> str:
    """What the images are that ask."""
    return "held-out" if config.data.holdout else "test"


@dataclass(frozen=True)
class Sample:
    """Some images of one side: features, thumbnails, labels."""

    features: Float[Tensor, "image dim"]
    """L2-normalised."""
    thumbnails: UInt8[Tensor, "image 3 side side"]
    """As the network sees them, reduced."""
    labels: Int[Tensor, "image"]
    positions: Sequence[int]
    store: ImageStore

    def __len__(self) -> int:
        return len(self.features)

    @property
    def names(self) -> list[str]:
        """What the images are called: of paths, the last two parts."""
        return ["/".join(self.store.name(p).replace("\\", "/").split("/")[-2:]) for p in self.positions]

    @property
    def pixels(self) -> Float[Tensor, "image dim"]:
        """Raw pixels at 32 x 32 at most."""
        side = self.thumbnails.shape[-1]
        small = self.thumbnails.float()
        if side > 32:
            small = F.interpolate(small, size=(32, 32), mode="bilinear", antialias=True, align_corners=False)
        return small.flatten(1)


def draw_sample(
    backbone: nn.Module, preprocess: Preprocess, store: ImageStore, num: int, device: torch.device, *, seed: int,
    reporter: Reporter, what: str,
) -> Sample:  # fmt: skip
    """Features and thumbnails of `num` images drawn by a seed; each image is decoded once.

    Raises:
        DataError: none can be read.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 2**34]))
    positions = np.sort(generator.permutation(len(store))[:num]).tolist()
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (preprocess.mean, preprocess.std))
    side = min(THUMBNAIL, preprocess.size)

    def network(images: Tensor) -> tuple[Tensor, Tensor]:
        pictures = images.float() * std + mean
        if side < preprocess.size:
            pictures = F.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        return backbone(images), pictures

    kept: list[int] = []
    features, thumbnails = [], []
    for read, (vectors, pictures) in outputs_in_order(network, store, preprocess, positions, device):
        kept += read
        features.append(vectors)
        thumbnails.append(augment.to_uint8(pictures.clamp(0, 1)))
        reporter.progress(f"embedding {what} for the page", len(kept), len(positions))
    if not kept:
        raise DataError(f"none of {len(positions)} {what} can be read.")
    reporter.progress(f"embedding {what} for the page", len(positions), len(positions))
    return Sample(F.normalize(torch.cat(features), dim=1), torch.cat(thumbnails), store.labels[kept], kept, store)
