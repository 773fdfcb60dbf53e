"""Images of any channels and bits as pictures that people look at."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

REACH = 2.5
"""Standard deviations about the mean that a picture shows, from black to white."""


@dataclass(frozen=True)
class Shown:
    """Which channels are red, green and blue, and which of their values black and white."""

    channels: tuple[int, int, int]
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def colours(self, pixels: Float[Tensor, "image channel height width"]) -> Float[Tensor, "image 3 height width"]:
        """Pixels 0..1 as red, green and blue, 0..1 where they lie within the window."""
        if self == PLAIN:
            return pixels
        low, high = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (self.low, self.high))
        return ((pixels[:, list(self.channels)] - low) / (high - low)).clamp(0, 1)

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """`[height, width, channels]`, of 8 or 16 bits or floats in 0..1, as uint8 `[height, width, 3]`."""
        if self == PLAIN and pixels.dtype == np.uint8:
            return pixels
        scale = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
        chosen = pixels[:, :, list(self.channels)].astype(np.float32) / scale
        low, high = (np.array(v, dtype=np.float32) for v in (self.low, self.high))
        return np.rint((chosen - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)


PLAIN = Shown((0, 1, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
