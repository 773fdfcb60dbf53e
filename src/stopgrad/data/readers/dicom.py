"""DICOM, by pydicom: rescaled to the values that were measured, with the file's own window."""

import io
from typing import Any

import numpy as np

from stopgrad.data.pixels import Raw, UnreadableImageError


def read_dicom(data: bytes) -> Raw:
    """The first frame of a DICOM file, after its modality transform (rescale slope and intercept: Hounsfield units).

    The window is the file's first (DICOM PS3.3, C.11.2.1.2.1, linear); without one, nothing says what is black.
    MONOCHROME1 is inverted, YBR comes as RGB.

    Raises:
        UnreadableImageError: no pydicom, no image in it, or one that cannot be decoded.
    """
    try:
        import pydicom
        from pydicom.pixels.processing import apply_rescale
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise UnreadableImageError("DICOM needs pydicom: pip install 'stopgrad[dicom]'") from None
    from stopgrad.data.readers.raw import check_size, checked

    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dataset:
            raise UnreadableImageError("a DICOM file without an image")
        samples = int(getattr(dataset, "SamplesPerPixel", 1))
        check_size(int(dataset.Rows), int(dataset.Columns), samples)
        values = pixel_array(dataset, index=0)
        if samples > 1:
            return Raw(checked(values))
        values = checked(np.asarray(apply_rescale(values, dataset)))
    except UnreadableImageError:
        raise
    # Damaged files raise almost anything.
    except Exception as error:
        raise UnreadableImageError(f"DICOM: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    return Raw(values, _window(dataset), inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1")


def _window(dataset: Any) -> tuple[float, float] | None:
    try:
        centre, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    if not (np.isfinite([centre, width]).all() and width >= 1):
        return None
    half = (width - 1) / 2 or 0.5
    return centre - 0.5 - half, centre - 0.5 + half


def _first(value: Any) -> float:
    return float(value if isinstance(value, (int, float, str)) else value[0])
