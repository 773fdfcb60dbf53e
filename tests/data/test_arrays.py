"""Images as other libraries hand them over."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stopgrad.data.arrays import check_value_range, image_list, row_shape, to_pixels, value_range_of
from stopgrad.errors import ConfigError


@pytest.fixture
def digits():
    return load_digits().data[:60]


@pytest.mark.parametrize("scale", [1 / 16, 1, 255 / 16, 1000])
@pytest.mark.parametrize("offset", [0, -3.5])
def test_scale_and_offset_are_nothing(digits, scale, offset):
    numbers = digits * scale + offset
    pixels = to_pixels(numbers, value_range_of(numbers))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.rint(digits * 255 / 16))


def test_what_lies_outside_is_clipped():
    assert to_pixels(np.array([-1.0, 0, 0.5, 1, 9]), (0, 1)).tolist() == [0, 0, 128, 255, 255]


def test_uint8_stays(rng):
    pixels = rng.integers(3, 9, (4, 5), dtype=np.uint8)
    assert np.array_equal(to_pixels(pixels, value_range_of(pixels)), pixels)


def test_all_alike():
    numbers = np.full((2, 4), 7.0)
    assert not to_pixels(numbers, value_range_of(numbers)).any()


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint16, np.int64, np.float16, np.float64])
def test_numbers_of_any_type_keep_their_order(kind):
    numbers = np.arange(2 if kind is bool else 100).astype(kind)
    pixels = to_pixels(numbers, value_range_of(numbers))
    assert (pixels[0], pixels[-1]) == (0, 255)
    assert (np.diff(pixels.astype(int)) > 0).all()


def test_the_numbers_are_left_as_they_are(digits):
    before = digits.copy()
    digits.flags.writeable = False
    to_pixels(digits, (0, 16))
    assert np.array_equal(digits, before)


@pytest.mark.parametrize("value_range", [(1, 0), (1, 1), 255, "0-1", None, (0, 1, 2), (0, float("inf")), (0, None)])
def test_no_value_range(value_range):
    with pytest.raises(ConfigError, match="needs two numbers"):
        check_value_range(value_range)


def test_row_shapes():
    assert row_shape(64, (8, 8)) == row_shape(64, [8, -1]) == (8, 8)
    assert row_shape(192, (8, 8, 3)) == row_shape(192, (-1, 8, 3)) == (8, 8, 3)
    assert row_shape(5, (1, -1)) == (1, 5)


@pytest.mark.parametrize(
    ("num", "image_shape", "words"),
    [
        (64, None, r"give image_shape = \(8, 8\)"),
        (3072, None, r"give image_shape = \(32, 32, 3\)"),
        (30, None, r"give image_shape = \(height, width\)"),
        (64, (8, 9), "does not fit rows of 64"),
        (64, 64, "does not fit"),
        (64, (4, 4, 4), "does not fit"),
        (64, (-1, -1), "does not fit"),
    ],
)
def test_no_row_shape(num, image_shape, words):
    with pytest.raises(ValueError, match=words):
        row_shape(num, image_shape)


def test_image_lists(rng):
    picture, pixels = Image.new("L", (4, 4)), rng.integers(0, 256, (4, 4), dtype=np.uint8)
    assert image_list(Path("photos")) == "photos"
    assert image_list(("a.png", "b.png")) == image_list(np.array(["a.png", "b.png"])) == ["a.png", "b.png"]
    assert image_list([picture]) == [picture]
    assert len(image_list([pixels, pixels[:3]])) == 2
    for numbers in ([pixels, pixels], pixels, pixels[None], [[1, 2], [3, 4]], [], np.array([]), [1, 2]):
        assert image_list(numbers) is None
