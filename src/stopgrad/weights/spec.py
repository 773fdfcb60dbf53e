"""What an encoder is, beside its weights."""

from dataclasses import dataclass

from torch import nn

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
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    norm: str = "batch"
    pool: str = "default"
    patch_size: int = 0
    format: str = FORMAT

    def preprocess(self) -> Preprocess:
        """The preprocessing described."""
        return Preprocess(self.resize, self.image_size, self.mean, self.std)

    def build(self) -> nn.Module:
        """The network described, with weights drawn from torch's global generator.

        Raises:
            ValueError: there is no such network.
        """
        return build_backbone(
            self.backbone, stem=self.stem, image_size=self.image_size, norm=self.norm, pool=self.pool,
            patch_size=self.patch_size,
        )  # fmt: skip
