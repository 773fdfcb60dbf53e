"""What an encoder is, beside its weights."""

from dataclasses import dataclass

from stopgrad.data.preprocess import Preprocess

FORMAT = "stopgrad-encoder-1"


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
    format: str = FORMAT

    def preprocess(self) -> Preprocess:
        """The preprocessing described."""
        return Preprocess(self.resize, self.image_size, self.mean, self.std)
