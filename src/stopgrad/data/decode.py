"""From the bytes of a file to upright pixels."""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stopgrad.data.pixels import RGB8, PixelFormat, UnreadableImageError, range_of, with_channels
from stopgrad.data.readers.jpeg import decode_plain_jpeg
from stopgrad.data.readers.raw import as_unreadable, is_for_others, is_tiff, read_raw
from stopgrad.data.shards.order import layout_of
from stopgrad.data.sources import ImageSource
from stopgrad.errors import DataError, StopgradError

# Pillow warns of large images and odd metadata; an image it can decode is readable. Set once, not around each call:
# filters belong to the whole process, and decoding runs in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

VERSION = 1
"""Goes up when `decode` makes other pixels of some image: what is cached is decoded anew."""


def decode(
    data: "bytes | np.ndarray | Image.Image", *, shortest: int | None = None, pixels: PixelFormat = RGB8
) -> np.ndarray:
    """Decode an image.

    Args:
        data: an encoded file, a Pillow image, or an array `[height, width]` or `[height, width, channels]`.
        shortest: an image whose shorter side is longer than this is reduced to it, antialiased; JPEGs are decoded
            at a reduced scale on the way, which is much faster.
        pixels: what to decode to.

    Returns:
        `[height, width, channels]` of the format's type, upright (EXIF orientation applied). Alpha is laid over white,
        the first frame taken of an animation. In 8-bit RGB, the default, 16-bit grey is scaled to 8.

    Raises:
        UnreadableImageError: it cannot be decoded, or not to these channels.
    """
    with as_unreadable():
        if pixels == RGB8 and (decoded := _decode_rgb(data, shortest)) is not None:
            return decoded
        return _decode_any(data, shortest, pixels)


def _decode_rgb(data: "bytes | np.ndarray | Image.Image", shortest: int | None) -> np.ndarray | None:
    """8-bit RGB by Pillow; None of what it does not read."""
    if isinstance(data, bytes):
        if (pixels := decode_plain_jpeg(data, shortest)) is not None:
            return pixels
        if is_for_others(data):
            return None
    image = _open(data)
    if image is None:
        return None
    if shortest is not None:
        image.draft(None, (shortest, shortest))
    image.load()
    image = _to_rgb(_upright(image))
    if shortest is not None and min(image.size) > shortest:
        image = image.resize(_reduced(image.size, shortest), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


def _decode_any(data: "bytes | np.ndarray | Image.Image", shortest: int | None, pixels: PixelFormat) -> np.ndarray:
    raw = read_raw(data, pixels.pages)
    low, high = range_of(raw, pixels.value_range)
    values = raw.values.astype(np.float32)
    if np.abs([low, high]).max() >= 2**24:  # float32 has no room for the digits that count
        values = (raw.values.astype(np.float64) - low).astype(np.float32)
    else:
        values -= np.float32(low)
    values = np.clip(values / np.float32(high - low), 0, 1)
    values = with_channels(1 - values if raw.inverted else values, pixels.channels, has_alpha=raw.has_alpha)
    height, width = values.shape[:2]
    if shortest is not None and min(height, width) > shortest:
        size = _reduced((width, height), shortest)
        planes = [Image.fromarray(np.ascontiguousarray(values[:, :, c])) for c in range(values.shape[2])]
        values = np.stack(
            [np.asarray(plane.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)) for plane in planes], axis=2
        )
    return np.rint(values * np.float32(2**pixels.depth - 1)).astype(pixels.dtype)


def _reduced(size: tuple[int, int], shortest: int) -> tuple[int, int]:
    ratio = shortest / min(size)
    return max(shortest, round(size[0] * ratio)), max(shortest, round(size[1] * ratio))


def _open(data: "bytes | np.ndarray | Image.Image") -> Image.Image | None:
    if isinstance(data, Image.Image):
        return data.copy()
    if isinstance(data, bytes):
        if not data:
            raise UnreadableImageError("empty file")
        try:
            return Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            if is_tiff(data):
                return None
            raise
    if data.dtype != np.uint8 or data.size == 0 or (data.ndim == 3 and data.shape[2] not in (1, 3, 4)):
        return None
    return Image.fromarray(data[..., 0] if data.ndim == 3 and data.shape[2] == 1 else data)


def _upright(image: Image.Image) -> Image.Image:
    # Looking for an orientation takes a tenth of a small JPEG's time, and most have nowhere to keep one.
    if image.format == "JPEG" and not {"exif", "xmp"} & image.info.keys():
        return image
    return ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image, dtype=np.float64)
        if image.mode.startswith("I"):
            scale = 255 / 65535
        else:
            scale = 255.0 if pixels.max(initial=0) <= 1 else 1.0
        image = Image.fromarray(np.round(pixels * scale).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


class UnreadImageError(UnreadableImageError):
    """An image whose bytes could not be read, which may pass."""


def read_image(source: ImageSource, index: int, shortest: int, pixels: PixelFormat = RGB8) -> np.ndarray:
    """Read and decode an image: `[height, width, channels]`, its shorter side reduced to `shortest`.

    Raises:
        UnreadImageError: it could not even be read.
        UnreadableImageError: it cannot be decoded.
        DataError: the source fails in another way, which is a fault of its code.
    """
    try:
        data = source.read(index)
    except OSError as error:
        raise UnreadImageError(error.strerror or str(error)) from error
    except StopgradError:
        raise
    # It runs in threads: what comes of it there would name no image.
    except Exception as error:
        raise DataError(f"reading {source.name(index)} failed: {type(error).__name__}: {error}.") from error
    return decode(data, shortest=shortest, pixels=pixels)


def evenly_spaced(length: int, num: int) -> list[int]:
    """At most `num` indices below `length`, evenly spaced, first and last among them."""
    return sorted({int(i) for i in np.linspace(0, length - 1, min(num, length))}) if length else []


def spread_over(source: ImageSource, num: int) -> list[int]:
    """As `evenly_spaced`, over a source; of one that is read shard by shard, images out of a few shards."""
    layout = layout_of(source)
    if layout is None:
        return evenly_spaced(len(source), num)
    return sorted(layout.few(num, np.random.Generator(np.random.PCG64(0))).tolist())


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], *, ahead: int = 64
) -> Iterator[Any]:
    """`pool.map` with at most `ahead` results waiting; what has not begun when the caller leaves is dropped."""
    waiting: list[Future[Any]] = []
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()
