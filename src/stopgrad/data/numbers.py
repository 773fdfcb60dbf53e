"""Numbers of any range to uint8 pixels."""

import numpy as np

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
