"""An encoded file, a Pillow image or an array as values of the file's own type."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stopgrad.data.pixels import Raw, UnreadableImageError

MOST_VALUES = 178_956_970
"""An image that decodes to more is refused: a small file may claim any size. Pillow's bound, of pixels."""
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY_MAGIC = b"\x93NUMPY"
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def is_for_others(data: "bytes | np.ndarray | Image.Image") -> bool:
    """Whether a file is of a format that Pillow does not read at all: DICOM, or NumPy's."""
    return isinstance(data, bytes) and (data[128:132] == b"DICM" or data.startswith(_NPY_MAGIC))


def is_tiff(data: bytes) -> bool:
    """Whether a file is a TIFF; Pillow reads some of them."""
    return data.startswith(_TIFF_MAGIC)


def read_raw(data: "bytes | np.ndarray | Image.Image", pages: str = "first") -> Raw:
    """Decode an image, converting nothing.

    Args:
        data: an encoded file; a Pillow image; or an array `[height, width]` or `[height, width, channels]`.
        pages: of a TIFF with several pages: `first`, or all as `channels`.

    Raises:
        UnreadableImageError: it cannot be decoded, or by a library that is not installed.
    """
    with as_unreadable():
        return _read(data, pages)


@contextmanager
def as_unreadable() -> Iterator[None]:
    """Raise `UnreadableImageError` for whatever a decoder raises."""
    try:
        yield
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image of a known format") from error
    # Decoders of damaged files raise almost anything: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def _read(data: "bytes | np.ndarray | Image.Image", pages: str) -> Raw:
    if isinstance(data, np.ndarray):
        return Raw(checked(data))
    if isinstance(data, Image.Image):
        return _of_pillow(data)
    if not data:
        raise UnreadableImageError("empty file")
    if data[128:132] == b"DICM":
        from stopgrad.data.readers.dicom import read_dicom

        return read_dicom(data)
    if data.startswith(_NPY_MAGIC):
        return Raw(checked(_read_npy(data)))
    if is_tiff(data):
        from stopgrad.data.readers.tiff import read_tiff

        return read_tiff(data, pages)
    if data.startswith(_PNG_MAGIC) and data[24:25] == b"\x10" and data[25:26] in (b"\x02", b"\x06"):
        # Pillow keeps 8 of the 16 bits of colour PNGs.
        return _read_deep_png(data)
    return _of_pillow(Image.open(io.BytesIO(data)))


def checked(values: np.ndarray) -> np.ndarray:
    """Values as `[height, width, channels]`.

    Raises:
        UnreadableImageError: another shape, no numbers, or NaN or infinite ones among them.
    """
    shape = " x ".join(map(str, values.shape))
    if values.dtype.kind not in "buif" or values.ndim not in (2, 3) or values.size == 0:
        raise UnreadableImageError(
            f"an array of {shape or 'no'} values of type {values.dtype}: needs numbers, [height, width] or [height, "
            "width, channels]"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnreadableImageError("NaN or infinite values in it")
    return values[:, :, None] if values.ndim == 2 else values


def check_size(*sides: int) -> None:
    """Raise `UnreadableImageError` for an image that would decode to more than any image should."""
    if (size := float(np.prod([float(side) for side in sides]))) > MOST_VALUES:
        raise UnreadableImageError(
            f"it says that it decodes to {size / 1e6:,.0f} million values, more than {MOST_VALUES / 1e6:.0f}: cut it "
            "into tiles, or it may be a decompression bomb"
        )


def _of_pillow(image: Image.Image) -> Raw:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return Raw(checked(np.asarray(image)))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")
        return Raw(np.asarray(image), has_alpha=True)
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return Raw(checked(np.asarray(image)))


def _read_npy(data: bytes) -> Any:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UnreadableImageError(str(error)) from error


def _read_deep_png(data: bytes) -> Raw:
    try:
        import imagecodecs
    except ImportError:
        # Rather eight bits than none.
        return _of_pillow(Image.open(io.BytesIO(data)))
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    check_size(width, height, _PNG_CHANNELS.get(data[25], 1))
    return Raw(checked(imagecodecs.png_decode(data)), has_alpha=data[25:26] == b"\x06")
