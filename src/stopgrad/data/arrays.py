"""Images as other libraries hand them over: rows of numbers of any range, arrays, lists, columns of a table."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stopgrad.errors import ConfigError

PIXEL_RANGE = (0.0, 255.0)
ValueRange = tuple[float, float]


def check_value_range(value_range: object) -> ValueRange:
    """Two finite numbers, the smaller first; raises `ConfigError` for anything else."""
    try:
        low, high = (float(bound) for bound in value_range)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ConfigError(f"value_range = {value_range!r}: needs two numbers, what is black and what is white: (0, 1).")
    return low, high


def value_range_of(values: np.ndarray) -> ValueRange:
    """What is black and what is white in these numbers: 0 and 255 in uint8, else the least and the most."""
    if values.dtype == np.uint8:
        return PIXEL_RANGE
    low, high = float(values.min()), float(values.max())
    # All alike: all black.
    return (low, high) if low < high else (low, low + 1.0)


def to_pixels(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Numbers as uint8 pixels, the range mapped to 0..255; what lies outside becomes black or white."""
    low, high = value_range
    if values.dtype == np.uint8 and value_range == PIXEL_RANGE:
        return values
    scaled = values.astype(np.result_type(values.dtype, np.float32))
    scaled -= low
    scaled *= 255 / (high - low)
    return np.rint(scaled, out=scaled).clip(0, 255, out=scaled).astype(np.uint8)


def row_shape(num: int, image_shape: Any) -> tuple[int, ...]:
    """The shape of the image that a row of so many numbers makes.

    Args:
        num: numbers in a row.
        image_shape: (height, width) or (height, width, 1 or 3), one of them perhaps -1; None says nothing.

    Raises:
        ValueError: it says nothing, or does not fit.
    """
    if image_shape is None:
        side, side_rgb = math.isqrt(num), math.isqrt(num // 3)
        such_as = f"({side}, {side})" if side * side == num else "(height, width)"
        such_as = f"({side_rgb}, {side_rgb}, 3)" if 3 * side_rgb**2 == num else such_as
        raise ValueError(f"rows of {num} numbers do not say what image they make: give image_shape = {such_as}.")
    try:
        shape = np.empty(num, dtype=np.bool_).reshape(image_shape).shape
    except (TypeError, ValueError):
        shape = ()
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise ValueError(
            f"image_shape = {image_shape!r} does not fit rows of {num} numbers: needs (height, width) or (height, "
            "width, 3) of as many in all; one of them may be -1."
        )
    return shape


def image_list(images: Any) -> Any:
    """The path of a folder, or the images of a sequence as a list; None for one array, or lists, of numbers.

    Args:
        images: a path; a sequence or a table's column of paths, Pillow images, encoded files or arrays; or numbers.

    Raises:
        ValueError: arrays of several shapes that are not uint8: their numbers have no common black and white.
    """
    if isinstance(images, (str, Path)):
        return str(images)
    if getattr(images, "ndim", 0) == 1 and hasattr(images, "to_numpy"):
        images = images.to_numpy()
    if not isinstance(images, (list, tuple, np.ndarray)) or len(images) == 0:
        return None
    if isinstance(images[0], (str, Path, bytes, Image.Image)):
        return list(images)
    if isinstance(images, np.ndarray) and images.ndim > 1:
        return None
    if not isinstance(images[0], np.ndarray) or images[0].ndim < 2 or len({np.shape(i) for i in images}) == 1:
        return None
    if any(image.dtype != np.uint8 for image in images):
        raise ValueError("arrays of several shapes: needs uint8 pixels, or images of one shape.")
    return list(images)
