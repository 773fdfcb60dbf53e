"""TIFF and GeoTIFF, by tifffile: any number of bands or pages, of any type."""

import io
import re
from typing import Any

import numpy as np
from PIL import Image

from stopgrad.data.pixels import Raw, UnreadableImageError

_GDAL_NODATA, _ORIENTATION = 42113, 274
# How an image of each orientation (TIFF 6.0, section 8) is turned upright: transposed, then its axes reversed.
_UPRIGHT = {2: (False, (1,)), 3: (False, (0, 1)), 4: (False, (0,)), 5: (True, ()), 6: (True, (1,)),
            7: (True, (0, 1)), 8: (True, (0,))}  # fmt: skip


def read_tiff(data: bytes, pages: str) -> Raw:
    """A TIFF as it is; values that stand for no data (GDAL's tag) become the smallest of the others.

    Args:
        data: the file.
        pages: `first`: the first page alone; `channels`: all pages, one after another, as channels.

    Raises:
        UnreadableImageError: it cannot be decoded, or needs tifffile, which is not installed.
    """
    try:
        import tifffile
    except ImportError:
        return _by_pillow(data, pages)
    from stopgrad.data.readers.raw import check_size, checked

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            taken = list(file.pages) if pages == "channels" else [file.pages[0]]
            check_size(*taken[0].shape, len(taken))
            first: Any = taken[0].aspage()
            layers = [_page(page.aspage()) for page in taken]
            has_alpha = len(taken) == 1 and any(e.name in ("ASSOCALPHA", "UNASSALPHA") for e in first.extrasamples)
            inverted = first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
            nodata, turned = (first.tags.get(tag) for tag in (_GDAL_NODATA, _ORIENTATION))
    except UnreadableImageError:
        raise
    # Damaged files raise almost anything; a compression that needs imagecodecs, a ValueError that says so.
    except Exception as error:
        words = (str(error) or type(error).__name__).splitlines()[0]
        if "imagecodecs" in words:
            words += ": pip install 'stopgrad[geo]'"
        raise UnreadableImageError(f"TIFF: {re.sub(r'^<[^>]*> ', '', words)}") from error
    if len({layer.shape[:2] for layer in layers}) > 1:
        raise UnreadableImageError("TIFF: pages of different sizes are no channels")
    values = np.concatenate(layers, axis=2) if len(layers) > 1 else layers[0]
    if nodata is not None:
        values = _filled(values, str(nodata.value))
    if turned is not None and turned.value in _UPRIGHT:
        transposed, axes = _UPRIGHT[turned.value]
        values = np.flip(values.transpose(1, 0, 2) if transposed else values, axes)
    return Raw(checked(values), has_alpha=has_alpha, inverted=inverted)


def _page(page: Any) -> np.ndarray:
    """`[height, width, sample]`."""
    values: np.ndarray = page.asarray()
    if page.photometric.name in ("PALETTE", "YCBCR", "CIELAB", "SEPARATED") and "C" not in page.axes:
        # Colours that Pillow knows how to convert; tifffile leaves them as they are stored.
        with Image.open(io.BytesIO(page.parent.filehandle._fh.getvalue())) as image:
            image.seek(page.index)
            return np.asarray(image.convert("RGB"))
    if page.axes == "SYX":
        return values.transpose(1, 2, 0)
    if page.axes not in ("YX", "YXS"):
        raise UnreadableImageError(f"TIFF: a page of axes {page.axes}")
    return values[:, :, None] if values.ndim == 2 else values


def _filled(values: np.ndarray, nodata: str) -> np.ndarray:
    try:
        number = float(nodata.strip("\0 "))
    except ValueError:
        return values
    missing = np.isnan(values) if np.isnan(number) else values == np.array(number).astype(values.dtype)
    if not missing.any():
        return values
    if missing.all():
        raise UnreadableImageError("TIFF: no data in it")
    return np.where(missing, values[~missing].min(), values)


def _by_pillow(data: bytes, pages: str) -> Raw:
    from stopgrad.data.readers.raw import _of_pillow

    try:
        image = Image.open(io.BytesIO(data))
    except Exception as error:
        raise UnreadableImageError(
            "Pillow does not read this TIFF, which may have other channels or types: pip install 'stopgrad[geo]'"
        ) from error
    if pages == "channels" and getattr(image, "n_frames", 1) > 1:
        raise UnreadableImageError("a TIFF's pages as channels need tifffile: pip install 'stopgrad[geo]'")
    return _of_pillow(image)
