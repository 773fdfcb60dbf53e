import numpy as np
import pytest

from stopgrad.data.kinds.scans import SIDE, scattered
from stopgrad.data.open import open_images, recipe_for
from stopgrad.data.place import check_there, in_full
from stopgrad.errors import ConfigError


def pixels(source, num):
    return np.stack([np.asarray(source.read(i)) for i in range(num)])


def test_scans_are_scattered_the_same_way_every_time():
    plain, first, again = (open_images(name) for name in ("", "sklearn:scattered-digits", "sklearn:scattered-digits"))
    assert (len(first.train), len(first.test)) == (1437, 360)
    assert np.array_equal(pixels(first.train, 50), pixels(again.train, 50))
    assert pixels(first.train, 3).shape == (3, SIDE, SIDE)
    # The same scans are kept for the test, in both.
    assert [first.test.label(i) for i in range(360)] == [plain.test.label(i) for i in range(360)]
    assert first.name == "scikit-learn's digits, scattered"


def test_no_digit_leaves_its_image():
    full = scattered(np.full((300, 8, 8), 160, np.uint8))
    # Corners of a full scan may leave it, which digits do not fill; no more.
    ink = full.sum((1, 2)) / 160
    assert ink.min() > 0.7 * 8 * 8
    assert len({image.tobytes() for image in full}) > 290


def test_names():
    assert recipe_for(open_images("sklearn:digits")) == "digits"
    assert recipe_for(open_images("sklearn:scattered-digits")) == "scattered_digits"
    assert in_full("sklearn:scattered-digits") == "sklearn:scattered-digits"
    for call in (check_there, open_images):
        with pytest.raises(ConfigError, match="did you mean 'scattered-digits'"):
            call("sklearn:scatered-digits")
