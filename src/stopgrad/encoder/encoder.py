"""Images to features."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stopgrad.data.decode import Progress
from stopgrad.data.kinds.folders import FileSource
from stopgrad.data.open import open_images
from stopgrad.data.pixels import RGB8
from stopgrad.data.shards.place import names_shards
from stopgrad.data.sources import ArraySource, ImageSource, ListSource
from stopgrad.encoder.features import features_of
from stopgrad.errors import DataError
from stopgrad.hardware import choose_device
from stopgrad.loader.preprocess import Preprocess
from stopgrad.weights.spec import EncoderSpec


@dataclass(frozen=True)
class Encoder:
    """A trained backbone with its preprocessing."""

    backbone: nn.Module
    """Normalised images `[image, channels, size, size]` to pooled features `[image, dim]`."""
    preprocess: Preprocess
    spec: EncoderSpec | None = None
    """How the backbone is built; None for a network of the caller's own."""
    name: str = "encoder"
    """What to call it in a message: where it was loaded from."""
    source: str | None = None
    """What `load_encoder` loads it from again, from whatever folder; None where it did not."""

    def placed(self, device: str = "auto") -> tuple[nn.Module, torch.device]:
        """The backbone in eval mode on a device (as the setting `device`), and the device."""
        place = choose_device(device)
        return self.backbone.eval().to(place), place

    def embed(
        self, images: Any, batch_size: int = 0, device: str = "auto", *, precision: str = "auto",
        progress: Progress | None = None,
    ) -> Float[Tensor, "image dim"]:  # fmt: skip
        """Pooled backbone features, not normalised.

        Args:
            images: a folder, an image file or a parquet file (of a data set with splits, the training split); an
                `ImageSource`; a sequence of paths, Pillow images or uint8 arrays `[height, width, 3]`; or uint8
                pixels in one array `[image, height, width, 3]` or tensor `[image, 3, height, width]`.
            batch_size: images a forward pass; 0: chosen for the device.
            device: as the setting `device`.
            precision: what the backbone computes in, as the setting `precision`: where the hardware computes in bf16,
                that is several times as fast and the features agree with those of `fp32` to two or three digits.
            progress: called with (images done, images in all).

        Returns:
            float32 `[image, dim]` on the CPU, in the order of the images.

        Raises:
            ConfigError: a negative batch size, or no such precision.
            DataError: there are no images, or one cannot be read; the message names it.
            ValueError: pixels of another shape.
        """
        source = as_source(images)
        if len(source) == 0:
            raise DataError("no images to embed.")
        backbone, place = self.placed(device)
        return features_of(
            backbone, self.preprocess, source, place, batch_size=batch_size, strict=True, precision=precision,
            progress=progress,
        ).vectors  # fmt: skip


def encoder_of(backbone: nn.Module, spec: EncoderSpec, name: str) -> Encoder:
    """An encoder in eval mode, with the preprocessing of its spec."""
    placed: nn.Module = backbone.eval().to(memory_format=torch.channels_last)
    return Encoder(placed, spec.preprocess(), spec, name)


def as_source(images: Any) -> ImageSource:
    """What `Encoder.embed` takes, as a source.

    Raises:
        DataError: a path where there are no images.
        ValueError: pixels of another shape.
    """
    if isinstance(images, (str, Path)):
        path = Path(images).expanduser()
        if names_shards(images):
            return open_images(images).train
        return FileSource([path]) if path.is_file() and path.suffix != ".parquet" else open_images(path).train
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"a tensor of shape {tuple(images.shape)}: needs [image, 3, height, width].")
        return ArraySource(images.cpu().permute(0, 2, 3, 1).numpy())
    if isinstance(images, np.ndarray):
        if images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"an array of shape {images.shape}: needs [image, height, width, 3].")
        return ArraySource(images)
    if isinstance(images, Sequence):
        if images and all(isinstance(image, (str, Path)) for image in images):
            return FileSource([Path(image) for image in images])
        return ListSource(images)
    source: ImageSource = images
    return source


def encoder_digest(encoder: Encoder) -> str:
    """A digest of weights, architecture and preprocessing: equal for encoders that embed alike."""
    architecture = type(encoder.backbone).__name__ if encoder.spec is None else encoder.spec.backbone
    preprocess = asdict(encoder.preprocess)
    if encoder.preprocess.pixels == RGB8:
        # As it was before there were others.
        del preprocess["pixels"]
    digest = hashlib.sha256(f"{architecture}\0{preprocess}\0".encode())
    for name, weights in sorted(encoder.backbone.state_dict().items()):
        digest.update(f"{name}\0{tuple(weights.shape)}\0{weights.dtype}\0".encode())
        digest.update(weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
