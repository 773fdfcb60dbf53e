"""The images that a page shows: where they are, and one pass of the backbone over a sample of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.augment import augment
from stopgrad.cache.store import ImageStore
from stopgrad.config import Config
from stopgrad.data.decode import evenly_spaced
from stopgrad.data.python import as_splits
from stopgrad.data.sources import ImageSource
from stopgrad.data.splits import hold_out
from stopgrad.encoder.features import outputs_in_order
from stopgrad.errors import ConfigError, DataError
from stopgrad.loader.preprocess import Preprocess, pixels_of, shortest_of, shown_of
from stopgrad.loader.shown import Shown
from stopgrad.reporter import Reporter

THUMBNAIL, THUMBNAIL_OF_MANY, MANY = 64, 32, 20_000
"""Side in pixels; of more than `MANY` images less, since all of them are in memory."""


@dataclass(frozen=True)
class RunImages:
    """The images of a page. A run's: those it was trained on, and those that ask in its k-NN."""

    train: ImageStore
    test: ImageStore | None
    test_name: str = "test"
    """What to call the latter: test, or held-out."""
    train_name: str = "training"
    """What to call the former; empty where there is one set only, and nobody was trained on it."""

    @property
    def class_names(self) -> Sequence[str]:
        """The classes, in the order of their numbers; empty without labels."""
        return self.train.source.class_names if len(self.train.source.class_names) > 1 else ()


def open_run_images(run: RunDir, config: Config, data: Any) -> RunImages:
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
    splits = as_splits(data, config.data)
    train: ImageSource = splits.train
    test: ImageSource | None = splits.test
    if config.data.holdout:
        train, test = hold_out(train, config.data.holdout)

    def opened(source: ImageSource) -> ImageStore:
        return ImageStore(source, shortest_of(config), kept=range(len(source)), pixels_are=pixels_of(config))

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
    shown: Shown
    """How its images are shown."""
    lengths: Float[Tensor, "image"] | None = None
    """Of the features before they were normalised."""

    def __len__(self) -> int:
        return len(self.features)

    def evenly_spaced(self, num: int) -> "Sample":
        """At most `num` of the images, evenly spaced over their order."""
        if num >= len(self):
            return self
        rows = evenly_spaced(len(self), num)
        lengths = None if self.lengths is None else self.lengths[rows]
        positions = [self.positions[row] for row in rows]
        return Sample(
            self.features[rows], self.thumbnails[rows], self.labels[rows], positions, self.store, self.shown, lengths
        )

    @property
    def vectors(self) -> Float[Tensor, "image dim"]:
        """The features as they are, not normalised."""
        assert self.lengths is not None
        return self.features * self.lengths[:, None]

    @property
    def names(self) -> list[str]:
        """What the images are called: of paths, the last two parts."""
        return ["/".join(self.store.name(p).replace("\\", "/").split("/")[-2:]) for p in self.positions]

    @property
    def pixels(self) -> Float[Tensor, "image dim"]:
        """Raw pixels at 32 x 32 at most."""
        return torch.cat([_reduced(part, 32).flatten(1) for part in self.thumbnails.split(1024)])


def draw_sample(
    backbone: nn.Module, preprocess: Preprocess, store: ImageStore, num: int, device: torch.device, *, seed: int,
    precision: str = "auto", reporter: Reporter, what: str,
) -> Sample:  # fmt: skip
    """Features and thumbnails of `num` images drawn by a seed; each image is decoded once.

    Raises:
        DataError: none can be read.
        ConfigError: the network does not return one row an image.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 2**34]))
    positions = np.sort(store.draw(num, generator)).tolist()
    mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (preprocess.mean, preprocess.std))
    shown = shown_of(preprocess)
    side = THUMBNAIL if len(positions) <= MANY else THUMBNAIL_OF_MANY

    def network(images: Tensor) -> tuple[Tensor, Tensor]:
        return backbone(images), _reduced(shown.colours(images.float() * std + mean), side)

    kept: list[int] = []
    features, thumbnails = [], []
    for read, (vectors, pictures) in outputs_in_order(
        network, store, preprocess, positions, device, precision=precision
    ):
        kept += read
        features.append(vectors)
        thumbnails.append(augment.to_uint8(pictures.clamp(0, 1)))
        reporter.progress(f"embedding {what} for the page", len(kept), len(positions))
    if not kept:
        name, reason = next(iter(store.skipped.items()))
        raise DataError(
            f"none of {len(positions)} {what} can be read; the first: {name}: {reason}.", topic="unreadable-images"
        )
    reporter.progress(f"embedding {what} for the page", len(positions), len(positions))
    vectors = torch.cat(features)
    if vectors.ndim != 2 or len(vectors) != len(kept):
        raise ConfigError(
            f"the network returned {tuple(vectors.shape)} for {len(kept)} images: needs [image, dim], a row an image."
        )
    return Sample(
        F.normalize(vectors, dim=1), torch.cat(thumbnails), store.labels_of(kept), kept, store, shown,
        vectors.norm(dim=1),
    )  # fmt: skip


def _reduced(images: Tensor, side: int) -> Tensor:
    """Square images as float32, reduced to `side` pixels where they are larger."""
    images = images.float()
    if images.shape[-1] <= side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
