import io

import numpy as np
import pytest
from PIL import Image

from stopgrad.data.decode import decode
from stopgrad.data.readers import jpeg


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def photo(mode="RGB", size=(37, 23)):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"quality": 30}, {"comment": b"x"}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_pixels_are_pillows(monkeypatch, mode, options, subsampling):
    data = encoded(photo(mode), **options, **({"subsampling": subsampling} if mode == "RGB" else {}))
    fast = jpeg.decode_plain_jpeg(data, None)
    assert fast is not None
    assert (decode(data) == fast).all()
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    assert (decode(data) == fast).all()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(), exif=exif)


@pytest.mark.parametrize(
    "data",
    [turned(), encoded(photo("CMYK")), encoded(photo())[:-200], encoded(photo())[:100], b"\xff\xd8", b"\x89PNG"],
    ids=["turned", "cmyk", "truncated", "cut", "start", "png"],
)
def test_what_is_not_plain_is_left_to_pillow(data):
    assert jpeg.decode_plain_jpeg(data, None) is None


def test_what_is_to_be_reduced_is_left_to_pillow():
    data = encoded(photo())
    assert jpeg.decode_plain_jpeg(data, 22) is None
    assert jpeg.decode_plain_jpeg(data, 23) is not None
    assert decode(data, shortest=10).shape == (10, 16, 3)
