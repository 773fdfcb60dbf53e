"""Vertical flips and quarter turns: exact, and of no effect on what was drawn before they existed."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from stopgrad.augment import augment
from stopgrad.augment.draws import draw_view
from stopgrad.settings import Augmentation

NUM = 64
TURNED = {"turn_probability": 0.75, "vertical_flip_probability": 0.5}


def draw(num=NUM, size=(20, 30), **settings):
    plain = {"seed": 0, "epoch": 0, "images": np.arange(num), "view": 0, "sizes": np.array([size] * num)}
    return draw_view(Augmentation(**settings), **plain)


def undone(draws, *names):
    return dataclasses.replace(draws, **{name: np.zeros_like(getattr(draws, name)) for name in names})


def test_by_default_nothing_is_turned_or_upside_down():
    plain = draw()
    assert not plain.quarters.any()
    assert not plain.vertical_flip.any()


def test_what_was_drawn_before_is_drawn_still():
    """A digest of the ten fields, as the commit before these two drew them."""
    draws = draw(num=200, size=(100, 160), blur_probability=0.5, **TURNED)
    names = ("box", "flip", "jitter", "factors", "order", "gray", "sigma", "rotation", "zoom", "shift")
    fields = b"".join(np.ascontiguousarray(getattr(draws, name)).tobytes() for name in names)
    assert hashlib.sha256(fields).hexdigest()[:16] == "aed89676a3203889"


def test_shares_of_turns():
    draws = draw(num=10_000, **TURNED)
    error = 5 * (0.25 / 10_000) ** 0.5
    assert np.abs(np.bincount(draws.quarters) / 10_000 - 0.25).max() < error
    assert abs(draws.vertical_flip.mean() - 0.5) < error
    # Drawn independently of each other and of the horizontal flip.
    together = np.corrcoef([draws.flip, draws.vertical_flip, draws.quarters])
    assert np.abs(together - np.eye(3)).max() < 5 / 100


@pytest.mark.parametrize("form", ["resized_crop", "affine"])
def test_turned_views_are_those_that_are_not_turned_by_rot90(generator, form):
    images = torch.randint(0, 256, (NUM, 3, 20, 30), generator=generator, dtype=torch.uint8)
    settings = Augmentation(geometry=form, **TURNED)
    draws = draw(geometry=form, **TURNED)
    plain = augment.cut(images, undone(draws, "quarters"), settings, 16)
    expected = torch.stack([torch.rot90(x, int(k), (1, 2)) for x, k in zip(plain, draws.quarters, strict=True)])
    assert torch.equal(augment.cut(images, draws, settings, 16), expected)


@pytest.mark.parametrize("form", ["resized_crop", "affine"])
def test_views_upside_down_are_mirrored_top_to_bottom(generator, form):
    images = torch.randint(0, 256, (NUM, 3, 20, 30), generator=generator, dtype=torch.uint8)
    settings = Augmentation(geometry=form, **TURNED)
    draws = undone(draw(geometry=form, **TURNED), "quarters")
    expected = augment.cut(images, undone(draws, "vertical_flip"), settings, 16)
    drawn = torch.from_numpy(draws.vertical_flip)
    assert 0 < drawn.sum() < NUM
    expected[drawn] = expected[drawn].flip(2)
    torch.testing.assert_close(augment.cut(images, draws, settings, 16), expected, rtol=0, atol=1e-5)
