"""What a data set's images are: channels, bits, black and white, mean and deviation, from a sample of them."""

import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image

from stopgrad.config import Config
from stopgrad.data.decode import read_image, spread_over
from stopgrad.data.pixels import MOST_CHANNELS, RGB8, PixelFormat, Raw, UnreadableImageError, ValueRange
from stopgrad.data.readers.raw import as_unreadable, is_for_others, is_tiff, read_raw
from stopgrad.data.sources import ImageSource
from stopgrad.errors import ConfigError, DataError
from stopgrad.loader.preprocess import pixels_of

SAMPLE, STATISTICS = 32, 256
"""Images whose files are looked at, and images whose pixels are averaged."""
PERCENTILES = (0.1, 99.9)
_COMMON = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})


def with_images(config: Config, given: Iterable[str], source: ImageSource) -> tuple[Config, str | None]:
    """The config with what the images bring along, and a line that says it (None: they are 8-bit RGB as usual).

    Args:
        config: the run's. Channels and depth of 0, and a value range of (0, 0), are for the images to say.
        given: names of the settings that the user gave, or initial weights brought; those stay.
        source: the images.

    Raises:
        ConfigError: settings that do not fit each other.
        DataError: images of different channels, or of too many.
    """
    pixels = survey(source, config)
    config = config.replace(channels=pixels.channels, depth=pixels.depth)
    if pixels == RGB8 and len(config.augmentation.mean) == 3:
        check_channels(config)
        return config, None
    config = config.replace(value_range=pixels.value_range or (0.0, 0.0))
    if wanting := {"mean", "std"} - set(given):
        mean, std = statistics(source, pixels)
        found = {"mean": mean, "std": std}
        config = config.replace(**{name: found[name] for name in wanting})
    words = str(pixels)
    if pixels.channels != 3:
        words += "; each channel's brightness and contrast are jittered on their own, without hue, saturation and grey"
    check_channels(config)
    return config, words


def check_channels(config: Config) -> None:
    """Raise `ConfigError` where numbers are not for as many channels as the images have."""
    channels = config.data.channels or 3
    if len(config.augmentation.mean) != channels:
        raise ConfigError(
            f"mean and std have {len(config.augmentation.mean)} numbers, the images {channels} "
            f"channel{'s' if channels > 1 else ''}: give one a channel, or neither for those of a sample.",
            topic="wrong-channels",
        )
    if any(c >= channels for c in config.data.shown_channels):
        raise ConfigError(
            f"shown_channels = {config.data.shown_channels}: the images have channels 0 to {channels - 1}.",
            topic="wrong-channels",
        )


def survey(source: ImageSource, config: Config) -> PixelFormat:
    """What the images are to be decoded to: as the config says, and where it does not, as most of a sample of them are.

    Raises:
        DataError: images of different channels, or of more than 16.
    """
    wanted, d = pixels_of(config), config.data
    sample = _sample(source, wanted.pages)
    counts = {} if d.channels else {_channels(raw): name for name, raw in reversed(sample)}
    channels = d.channels or _common_channels(counts)
    depth = d.depth or (16 if any(raw.values.dtype not in (np.uint8, np.bool_) for _, raw in sample) else 8)
    value_range = wanted.value_range
    if value_range is None and depth == 16:
        value_range = _range([raw for _, raw in sample if raw.own_range is None])
    return PixelFormat(channels, depth, value_range, wanted.pages, wanted.shown)


def statistics(source: ImageSource, pixels: PixelFormat) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over a sample, of pixels in 0..1.

    Raises:
        DataError: no image of the sample can be read.
    """
    sums, squares, count = np.zeros(pixels.channels), np.zeros(pixels.channels), 0
    for index in spread_over(source, STATISTICS):
        try:
            image = read_image(source, index, 256, pixels).reshape(-1, pixels.channels)
        except UnreadableImageError:
            continue
        values = image / np.float64(2**pixels.depth - 1)
        sums, squares, count = sums + values.sum(axis=0), squares + (values**2).sum(axis=0), count + len(values)
    if not count:
        name, reason = _first_problem(source, pixels)
        raise DataError(
            f"no image of a sample can be read as {pixels}; the first: {name}: {reason}.", topic="unreadable-images"
        )
    mean = sums / count
    # A channel without contrast is left as it is.
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return _rounded(mean), _rounded(np.where(std > 1e-6, std, 1.0))


def _sample(source: ImageSource, pages: str) -> list[tuple[str, Raw]]:
    """Name and values of each image of a sample that is not common; none where most are."""
    found: list[tuple[str, Raw]] = []
    num_common = 0
    for index in spread_over(source, SAMPLE):
        # Those that cannot be read are told of later.
        with suppress(OSError, UnreadableImageError):
            data = source.read(index)
            if _is_common(data) or (raw := read_raw(data, pages)).is_common:
                num_common += 1
            else:
                found.append((source.name(index), raw))
    return found if len(found) >= num_common else []


def _is_common(data: Any) -> bool:
    """Whether the header of an image says that 8-bit RGB loses nothing of it; otherwise its values tell."""
    if isinstance(data, np.ndarray):
        return data.dtype == np.uint8 and (data.ndim == 2 or data.shape[2] in (1, 3))
    if isinstance(data, Image.Image):
        return data.mode in _COMMON
    if is_for_others(data) or is_tiff(data) or (data[12:16] == b"IHDR" and data[24:25] == b"\x10"):
        return False
    with as_unreadable(), Image.open(io.BytesIO(data)) as image:
        return image.mode in _COMMON


def _channels(raw: Raw) -> int:
    return raw.values.shape[2] - raw.has_alpha


def _common_channels(counts: dict[int, str]) -> int:
    if len(counts) > 1 and set(counts) != {1, 3}:
        (one, first), (other, second) = list(counts.items())[:2]
        raise DataError(
            f"images of different channels: {first} has {one}, {second} has {other}. Give channels; images that have "
            "others are then skipped.",
            topic="wrong-channels",
        )
    most = max(counts, default=3)
    if most > MOST_CHANNELS:
        raise DataError(
            f"{counts[most]} has {most} channels: at most {MOST_CHANNELS} can be taken.", topic="wrong-channels"
        )
    return most


def _range(sample: Sequence[Raw]) -> ValueRange | None:
    """Black and white by the percentiles of a sample's values; None where the files say it, or the type does."""
    if not sample:
        return None
    values = np.concatenate([raw.values.reshape(-1)[:: max(1, raw.values.size // 20_000)] for raw in sample])
    low, high = (float(f"{p:.6g}") for p in np.percentile(values.astype(np.float64), PERCENTILES))
    return (low, high) if low < high else (low, low + 1.0)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.5g}") for value in values)


def _first_problem(source: ImageSource, pixels: PixelFormat) -> tuple[str, str]:
    try:
        read_image(source, 0, 256, pixels)
    except UnreadableImageError as error:
        return source.name(0), str(error)
    return source.name(0), "it is empty"
