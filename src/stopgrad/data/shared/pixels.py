"""Images as other libraries hand them over, one at a time: Pillow images, arrays, tensors, paths, encoded files."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stopgrad.data.shared.tables import as_pixels, channels_are_first
from stopgrad.errors import DataError


def as_image(image: Any) -> Any:
    """An image as a source returns it: encoded bytes, a Pillow image, or an array with the channels last.

    Args:
        image: one of these, a path, or a tensor `[height, width]`, `[channel, height, width]` or `[height, width,
            channel]`.

    Raises:
        OSError: it is none of these, or a file that cannot be read.
    """
    if isinstance(image, (bytes, Image.Image)):
        return image
    if isinstance(image, (str, Path)):
        return Path(image).read_bytes()
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
        if image.ndim == 3 and (image.shape[0] in (1, 3, 4) or _channels_are_first(image)):
            return as_pixels(image, channels_first=True)
    if isinstance(image, np.ndarray) and image.ndim in (2, 3):
        return as_pixels(image)
    shape = f" of shape {list(image.shape)}" if hasattr(image, "shape") else ""
    raise OSError(f"no image, but {type(image).__name__}{shape}")


def _channels_are_first(image: np.ndarray) -> bool:
    try:
        return channels_are_first((1, *image.shape), image.dtype, "a tensor")
    except DataError as error:
        raise OSError(str(error)) from error
