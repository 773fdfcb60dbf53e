import io

import numpy as np
import pytest
from PIL import Image

from stopgrad.data.decode import decode
from stopgrad.data.pixels import UnreadableImageError


@pytest.fixture
def photo(rng):
    """A smooth picture with four unlike corners, so that a turned one is told from an upright one."""
    y, x = np.mgrid[0:24, 0:36]
    pixels = np.stack([x * 7, y * 10, (x + y) * 4], axis=2).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_png_is_exact(photo):
    np.testing.assert_array_equal(decode(encoded(photo, "PNG")), np.asarray(photo))


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_other_formats(photo, kind, options):
    result = decode(encoded(photo, kind, **options))
    assert result.dtype == np.uint8
    assert np.abs(result.astype(int) - np.asarray(photo)).mean() < 3


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "I;16"])
def test_every_mode_comes_out_as_rgb(photo, mode):
    if mode == "I;16":
        image = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    else:
        image = photo.convert(mode)
    result = decode(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert result.shape == (24, 36, 3)
    if mode in ("L", "LA", "I;16"):
        np.testing.assert_array_equal(result[..., 0], np.asarray(photo.convert("L")))
        np.testing.assert_array_equal(result[..., 0], result[..., 2])


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode(encoded(clear, "PNG")) == 255).all()
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert abs(int(decode(encoded(half, "PNG"))[0, 0, 0]) - 127) <= 1
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    assert (decode(encoded(palette, "PNG", transparency=0)) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(photo, orientation):
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
             7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo if orientation == 1 else photo.transpose(Image.Transpose[turns[orientation]])
    np.testing.assert_array_equal(decode(encoded(stored, "PNG", exif=exif)), np.asarray(photo))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_images_are_reduced_to_the_shorter_side(kind):
    gradient = np.linspace(0, 255, 800).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(gradient, (600, 800)).copy()).convert("RGB")
    result = decode(encoded(image, kind), shortest=60)
    assert result.shape == (60, 80, 3)
    expected = np.asarray(image.resize((80, 60), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(result.astype(int) - expected).mean() < 3


def test_small_images_are_not_enlarged(photo):
    assert decode(encoded(photo, "PNG"), shortest=60).shape == (24, 36, 3)


def test_arrays_and_pillow_images(photo):
    pixels = np.asarray(photo)
    np.testing.assert_array_equal(decode(pixels), pixels)
    np.testing.assert_array_equal(decode(photo), pixels)
    np.testing.assert_array_equal(decode(pixels[..., 0])[..., 1], pixels[..., 0])
    np.testing.assert_array_equal(decode(pixels[..., :1])[..., 1], pixels[..., 0])


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"not an image at all", "known format"),
        (np.full((4, 4, 3), None), "object"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.zeros((0, 4, 3), np.uint8), "0 x 4 x 3"),
        (np.zeros((4, 4, 7), np.uint8), "7 channels, not 3"),
    ],
)
def test_what_is_no_image_is_said(data, message):
    with pytest.raises(UnreadableImageError, match=message):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
def test_truncated_files_are_unreadable(rng, kind, share):
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(UnreadableImageError):
        decode(data[: int(len(data) * share)])
