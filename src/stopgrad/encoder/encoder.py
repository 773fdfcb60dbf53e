"""Images to features."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stopgrad.data.decode import Progress
from stopgrad.data.pixels import RGB8
from stopgrad.data.python import as_source
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
    """uint8 pixels or a Pillow image to what the backbone takes."""
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
            images: a data set by its path, or of whatever type `stopgrad.data.python.as_source` takes: an image file, a
                sequence of paths, Pillow images or arrays, an array `[image, height, width, channel]`, a tensor
                `[image, channel, height, width]`, a data set of PyTorch or Hugging Face, an `ImageSource`. Of a data
                set with splits, the training images.
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
