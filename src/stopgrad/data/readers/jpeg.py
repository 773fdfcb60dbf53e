"""Plain JPEGs by simplejpeg, where that is installed: the pixels are Pillow's, and small ones come far sooner."""

import numpy as np

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

_MOST_PIXELS = 178_956_970
"""Of larger images Pillow says that they are bombs."""
_SOI, _SOS, _APP1, _APP14 = b"\xff\xd8", 0xDA, 0xE1, 0xEE


def decode_plain_jpeg(data: bytes, shortest: int | None) -> np.ndarray | None:
    """8-bit RGB of a grey or YCbCr JPEG that is taken as it is; None of anything else, which is for Pillow.

    That is: no JPEG, damaged, turned (EXIF, XMP), of Adobe's colours, or to be reduced.

    Args:
        data: an encoded file.
        shortest: the longest shorter side that needs no reducing.
    """
    if simplejpeg is None or not data.startswith(_SOI) or not _is_plain(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (
            height * width > _MOST_PIXELS
            or colours not in ("YCbCr", "Gray")
            or (shortest is not None and min(height, width) > shortest)
        ):
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(data)
    # Of whatever is wrong, Pillow says it or reads what there is.
    except ValueError:
        return None
    return pixels


def _is_plain(data: bytes) -> bool:
    """Whether nothing before the first scan says how the image is turned, or of what colours it is."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _SOS:
            return True
        if marker in (_APP1, _APP14):
            return False
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False
