"""From the bytes of a file to upright uint8 RGB."""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stopgrad.data.sources import ImageSource

# Pillow warns of large images and odd metadata; an image it can decode is readable. Set once, not around each call:
# filters belong to the whole process, and decoding runs in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

VERSION = 1
"""Goes up when `decode` makes other pixels of some image: what is cached is decoded anew."""


class UnreadableImageError(Exception):
    """An image that is empty, truncated, damaged or of no known format; the message says which."""


def decode(data: "bytes | np.ndarray | Image.Image", *, shortest: int | None = None) -> np.ndarray:
    """Decode an image.

    Args:
        data: an encoded file, a Pillow image, or uint8 pixels `[height, width]`, `[height, width, 1, 3 or 4]`.
        shortest: an image whose shorter side is longer than this is reduced to it, antialiased; JPEGs are decoded
            at a reduced scale on the way, which is much faster.

    Returns:
        uint8 `[height, width, 3]`, RGB, upright (EXIF orientation applied). Alpha is laid over white, 16-bit grey
        scaled to 8, the first frame taken of an animation.

    Raises:
        UnreadableImageError: it cannot be decoded.
    """
    try:
        image = _open(data)
        if shortest is not None:
            image.draft(None, (shortest, shortest))
        image.load()
        image = _to_rgb(_upright(image))
        if shortest is not None and min(image.size) > shortest:
            ratio = shortest / min(image.size)
            size = (max(shortest, round(image.width * ratio)), max(shortest, round(image.height * ratio)))
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(image)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image of a known format") from error
    # Decoders of damaged files raise almost anything: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def _open(data: "bytes | np.ndarray | Image.Image") -> Image.Image:
    if isinstance(data, Image.Image):
        return data.copy()
    if isinstance(data, bytes):
        if not data:
            raise UnreadableImageError("empty file")
        return Image.open(io.BytesIO(data))
    if data.dtype != np.uint8 or data.size == 0:
        raise UnreadableImageError(f"pixels of type {data.dtype} and shape {data.shape}, not uint8")
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


def read_image(source: ImageSource, index: int, shortest: int) -> np.ndarray:
    """Read and decode an image: uint8 `[height, width, 3]`, its shorter side reduced to `shortest`.

    Raises:
        UnreadImageError: it could not even be read.
        UnreadableImageError: it cannot be decoded.
    """
    try:
        data = source.read(index)
    except OSError as error:
        raise UnreadImageError(error.strerror or str(error)) from error
    return decode(data, shortest=shortest)


def evenly_spaced(length: int, num: int) -> list[int]:
    """At most `num` indices below `length`, evenly spaced, first and last among them."""
    return sorted({int(i) for i in np.linspace(0, length - 1, min(num, length))}) if length else []


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
