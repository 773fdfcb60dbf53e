"""What an encoder is, beside its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from stopgrad.data.pixels import RGB8, PixelFormat
from stopgrad.loader.preprocess import Preprocess
from stopgrad.nets.backbones import build_backbone

FORMAT = "stopgrad-encoder-1"
OWN = "module:"
"""What the name of a caller's own network begins with."""


@dataclass(frozen=True)
class EncoderSpec:
    """What encoder.json holds: all that is needed beside the weights."""

    backbone: str
    stem: str
    num_features: int
    image_size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    norm: str = "batch"
    pool: str = "default"
    patch_size: int = 0
    pixels: PixelFormat = RGB8
    format: str = FORMAT

    @staticmethod
    def of(fields: Mapping[str, Any]) -> "EncoderSpec":
        """The spec of its fields as JSON has them.

        Raises:
            TypeError, KeyError, ValueError: they are none.
        """
        pixels = dict(fields.get("pixels", {}))
        pixels |= {name: tuple(pixels[name]) for name in ("value_range", "shown") if pixels.get(name) is not None}
        lists = {name: tuple(float(value) for value in fields[name]) for name in ("mean", "std")}
        return EncoderSpec(**{**fields, **lists, "pixels": PixelFormat(**pixels)})

    def preprocess(self) -> Preprocess:
        """The preprocessing described."""
        return Preprocess(self.resize, self.image_size, self.mean, self.std, self.pixels)

    def build(self) -> nn.Module:
        """The network described, with weights drawn from torch's global generator.

        Raises:
            ValueError: there is no such network.
        """
        return build_backbone(
            self.backbone, stem=self.stem, image_size=self.image_size, norm=self.norm, pool=self.pool,
            patch_size=self.patch_size, channels=len(self.mean),
        )  # fmt: skip
