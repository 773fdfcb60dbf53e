"""Images as evaluation and use see them: no augmentation."""

import math
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from stopgrad.augment import augment
from stopgrad.cache.store import ImageStore
from stopgrad.config import Config
from stopgrad.data.decode import decode
from stopgrad.data.pixels import RGB8, PixelFormat
from stopgrad.loader.shown import PLAIN, REACH, Shown

# Images of one size are preprocessed together up to so much: above it threads of an image each are as fast.
AT_ONCE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Preprocess:
    """An image as the backbone takes it: shorter side to `resize`, the centre of `size` pixels, normalised.

    Called with a Pillow image, an encoded file's bytes or pixels (`[height, width, channels]` as an array, `[channels,
    height, width]` as a tensor of the format's type), it returns float32 `[channels, size, size]`.
    """

    resize: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: PixelFormat = RGB8
    """What images are decoded to."""

    @property
    def shortest(self) -> int:
        """The shorter side that images may be reduced to beforehand: enough for the resize's own filter to decide."""
        return 2 * self.resize

    def __call__(self, image: "bytes | np.ndarray | Image.Image | Tensor") -> Float[Tensor, "channel size size"]:
        """Preprocess one image.

        Raises:
            UnreadableImageError: it cannot be decoded.
            ValueError: a tensor of another type or shape.
        """
        if not isinstance(image, Tensor):
            decoded = decode(image, shortest=self.shortest, pixels=self.pixels)
            image = torch.from_numpy(decoded.copy()).permute(2, 0, 1)
        kind, channels = f"uint{self.pixels.depth}", self.pixels.channels
        if str(image.dtype) != f"torch.{kind}" or image.ndim != 3 or image.shape[0] != channels:
            raise ValueError(
                f"a tensor image must be {kind} [{channels}, height, width], not {image.dtype} {tuple(image.shape)}."
            )
        return self.batch(image[None])[0]

    def batch(self, images: Tensor) -> Float[Tensor, "image channel size size"]:
        """Preprocess images `[image, channels, height, width]` of one size, of 8 or 16 bits."""
        return augment.normalise(augment.fit(images, self.resize, self.size), self.mean, self.std)


def plain_batches(
    store: ImageStore, preprocess: Preprocess, positions: Sequence[int] | None = None, *, batch_size: int = 256,
    first_batch: int = 0, workers: int = 0,
) -> Generator[tuple[list[int], Float[Tensor, "image channel size size"]], None, None]:  # fmt: skip
    """Preprocessed images in order, on the CPU, with their positions; those that turn out unreadable are left out.

    `first_batch` batches are passed over; those after them are cut as if they had not been.
    """
    chosen = list(range(len(store))) if positions is None else list(positions)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        # Parts of nearly one size: a last one of a single image would be no batch for BatchNorm.
        batches = np.array_split(np.arange(len(chosen)), -(-len(chosen) // batch_size)) if chosen else []
        for indices in batches[first_batch:]:
            part = [chosen[i] for i in indices]
            if store.stacked is not None:
                yield part, preprocess.batch(store.stacked.index_select(0, torch.tensor(part)))
                continue
            read = [
                (p, pixels) for p, pixels in zip(part, pool.map(store.pixels, part), strict=True) if pixels is not None
            ]
            if read:
                yield (
                    [position for position, _ in read],
                    _preprocessed([pixels for _, pixels in read], preprocess, pool),
                )


def _preprocessed(images: Sequence[np.ndarray], preprocess: Preprocess, pool: ThreadPoolExecutor) -> Tensor:
    """Small images of one size at once, which is the same and many times faster; others one by one."""
    if len({image.shape for image in images}) == 1 and images[0].nbytes * len(images) <= AT_ONCE_BYTES:
        return preprocess.batch(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    return torch.stack(list(pool.map(preprocess, images)))


def eval_resize(image_size: int) -> int:
    """Shorter side before the centre crop: the usual 256 for 224; small images are used whole."""
    return image_size if image_size <= 64 else round(image_size * 256 / 224)


def preprocess_of(config: Config) -> Preprocess:
    """The evaluation's preprocessing of a run."""
    size, a = config.data.eval_size or config.data.image_size, config.augmentation
    return Preprocess(eval_resize(size), size, a.mean, a.std, pixels_of(config))


def shown_of(preprocess: Preprocess) -> Shown:
    """How images are shown: 8-bit RGB as it is, of others a window about each channel's mean."""
    p = preprocess.pixels
    if p == RGB8 and not p.shown:
        return PLAIN
    first_three = tuple(min(c, p.channels - 1) for c in range(3)) if p.channels > 2 else (0, 0, 0)
    red, green, blue = p.shown * 3 if len(p.shown) == 1 else p.shown or first_three
    reach = [(preprocess.mean[c], REACH * preprocess.std[c]) for c in (red, green, blue)]
    low, high = ([max(0.0, m - r) for m, r in reach], [min(1.0, m + r) for m, r in reach])
    return Shown((red, green, blue), (low[0], low[1], low[2]), (high[0], high[1], high[2]))


def plain_pixels(preprocess: Preprocess, side: int) -> Preprocess:
    """The same images as pixels in 0..1, not normalised, of another side."""
    channels = len(preprocess.mean)
    return Preprocess(side, side, (0.0,) * channels, (1.0,) * channels, preprocess.pixels)


def settings_of(preprocess: Preprocess) -> dict[str, Any]:
    """The settings with which views are made of the same images for the same network."""
    p = preprocess.pixels
    return {
        "image_size": preprocess.size, "mean": preprocess.mean, "std": preprocess.std, "channels": p.channels,
        "depth": p.depth, "value_range": p.value_range or (0.0, 0.0), "pages": p.pages, "shown_channels": p.shown,
    }  # fmt: skip


def pixels_of(config: Config) -> PixelFormat:
    """What a run's images are decoded to."""
    d = config.data
    value_range = None if d.value_range == (0, 0) else (d.value_range[0], d.value_range[1])
    return PixelFormat(d.channels or 3, d.depth or 8, value_range, d.pages, d.shown_channels)


def shortest_of(config: Config) -> int:
    """The shorter side that decoded images may be reduced to: the smallest crop has as many pixels as a view still."""
    a = config.augmentation
    smallest = a.crop_scale_min if a.geometry == "resized_crop" else 1.0
    sides = [config.data.image_size / math.sqrt(smallest)]
    if config.objective.local_views:
        sides.append(config.data.local_side / math.sqrt(a.local_scale_min))
    return max(math.ceil(max(sides)), preprocess_of(config).shortest)
