"""What images are decoded to: how many channels, how many bits, and which values are black and white."""

from dataclasses import dataclass, field

import numpy as np

MOST_CHANNELS = 16
LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue, ITU-R BT.601, as Pillow makes grey of colours."""
ValueRange = tuple[float, float]


class UnreadableImageError(Exception):
    """An image that is empty, truncated, damaged, of no known format or of other channels; the message says which."""


@dataclass(frozen=True)
class PixelFormat:
    """What an image is decoded to: `[height, width, channels]`, uint8 or uint16."""

    channels: int = 3
    """1 to 16. Three of an 8-bit image are red, green and blue."""
    depth: int = 8
    """Bits: 8 or 16."""
    value_range: ValueRange | None = None
    """Which values are black and white; None: as the file says, or all that its type can hold."""
    pages: str = "first"
    """Of a TIFF with several pages: `first`, or all of them as `channels`."""
    shown: tuple[int, ...] = field(default=(), compare=False, repr=False)
    """Channels that pictures show: three, or one; none: the first three. The pixels are the same."""

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The type of decoded pixels."""
        return np.uint8 if self.depth == 8 else np.uint16

    def __str__(self) -> str:
        if self == RGB8:
            return "RGB"
        names = {1: "grey"} | ({3: "RGB"} if self.depth == 8 else {})
        words = f"{names.get(self.channels, f'{self.channels} channels')}, {self.depth} bits"
        if self.value_range is not None:
            words += f", values {self.value_range[0]:g} to {self.value_range[1]:g}"
        return words + (", pages as channels" if self.pages == "channels" else "")


RGB8 = PixelFormat()


@dataclass(frozen=True)
class Raw:
    """An image as its file has it."""

    values: np.ndarray
    """`[height, width, channels]`, integers or floats of any type."""
    own_range: ValueRange | None = None
    """What is black and white by the file's own word, such as a DICOM window."""
    has_alpha: bool = False
    """Whether the last channel is opacity."""
    inverted: bool = False
    """Whether low values are bright."""

    @property
    def is_common(self) -> bool:
        """Whether 8-bit RGB loses nothing of it: grey or RGB of 8 bits, perhaps with opacity."""
        return self.values.dtype == np.uint8 and self.values.shape[2] - self.has_alpha in (1, 3)


def range_of(raw: Raw, wanted: ValueRange | None) -> ValueRange:
    """What is black and white in an image.

    Args:
        raw: the image.
        wanted: goes before what the file says; None: the file's own, or what the type can hold.

    Raises:
        UnreadableImageError: integers of more than 16 bits, or negative numbers, of which nothing says it.
    """
    if wanted is not None or raw.own_range is not None:
        return wanted or raw.own_range or (0.0, 1.0)
    kind = raw.values.dtype
    if kind in (np.uint8, np.uint16):
        return 0.0, float(np.iinfo(kind).max)
    if kind == np.bool_:
        return 0.0, 1.0
    low, high = float(raw.values.min()), float(raw.values.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and high <= (255 if kind.kind == "f" else 65535):
        return 0.0, 255.0 if kind.kind == "f" else 65535.0
    raise UnreadableImageError(
        f"values from {low:g} to {high:g} of type {kind}: what is black and white? Give value_range"
    )


def with_channels(values: np.ndarray, num: int, *, has_alpha: bool) -> np.ndarray:
    """Values 0..1 `[height, width, channels]` with so many channels: opacity over white, grey and RGB as each other.

    Raises:
        UnreadableImageError: other channels that cannot be made of these.
    """
    there = values.shape[2]
    if there == num:
        return values
    if has_alpha:
        alpha = values[:, :, -1:]
        return with_channels(values[:, :, :-1] * alpha + (1 - alpha), num, has_alpha=False)
    if (there, num) == (1, 3):
        return np.repeat(values, 3, axis=2)
    if (there, num) == (3, 1):
        return values @ np.array(LUMA, dtype=values.dtype)[:, None]
    raise UnreadableImageError(f"{there} channel{'s' if there != 1 else ''}, not {num}")
