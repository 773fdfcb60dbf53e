"""Exactness against torchvision on the same drawn parameters."""

import dataclasses

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from torchvision.transforms import InterpolationMode

from stopgrad.augment import augment, color, geometry
from stopgrad.augment.draws import draw_view
from stopgrad.settings import Augmentation


@pytest.fixture
def images(generator):
    return torch.rand(24, 3, 40, 52, generator=generator)


@pytest.fixture
def draws():
    return draw_view(Augmentation(), seed=1, epoch=2, images=np.arange(24), view=0, sizes=np.array([[40, 52]] * 24))


@pytest.mark.parametrize("size", [8, 24, 32, 64])
def test_crops_equal_torchvisions_antialiased_ones(images, draws, size):
    ours = geometry.crop_and_resize(images, torch.from_numpy(draws.box), size)
    theirs = [
        TF.resized_crop(image, *box, [size, size], antialias=True)
        for image, box in zip(images, draws.box.tolist(), strict=True)
    ]
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=1e-5)


def adjust_in_order(image, factors, order):
    steps = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
    for step in order:
        image = steps[step](image, float(factors[step]))
    return image


def test_colour_jitter_equals_torchvisions(images, draws):
    ours = color.jitter(images, torch.from_numpy(draws.factors), torch.from_numpy(draws.order))
    theirs = [adjust_in_order(*each) for each in zip(images, draws.factors, draws.order, strict=True)]
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", range(4))
def test_each_colour_step_alone(images, step):
    factors = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(24, 1)
    factors[:, step] = torch.linspace(-0.5, 0.5, 24) if step == 3 else torch.linspace(0, 2, 24)
    order = torch.arange(4).repeat(24, 1)
    theirs = [adjust_in_order(image, f, [step]) for image, f in zip(images, factors, strict=True)]
    torch.testing.assert_close(color.jitter(images, factors, order), torch.stack(theirs), rtol=0, atol=1e-5)


def test_hue_of_pure_and_grey_colours():
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5]])
    image = colours.T.reshape(1, 3, 1, 7)
    for shift in (-0.5, -0.2, 0.0, 0.31, 0.5):
        ours = color.jitter(image, torch.tensor([[1, 1, 1, shift]]), torch.tensor([[0, 1, 2, 3]]))
        torch.testing.assert_close(ours[0], TF.adjust_hue(image[0], shift), rtol=0, atol=1e-5)


def test_jitter_leaves_its_input(images, draws):
    before = images.clone()
    color.jitter(images, torch.from_numpy(draws.factors), torch.from_numpy(draws.order))
    assert torch.equal(images, before)


def test_single_affine_is_near_for_mild_colours(generator):
    images = 0.3 + 0.4 * torch.rand(64, 3, 16, 16, generator=generator)
    mild = torch.cat([0.9 + 0.2 * torch.rand(64, 3, generator=generator), torch.zeros(64, 1)], dim=1)
    order = torch.arange(4).repeat(64, 1)
    exact, near = color.jitter(images, mild, order), color.jitter_single_affine(images, mild)
    assert (exact - near).abs().mean() < 0.01


def test_grey_equals_torchvisions(images):
    torch.testing.assert_close(color.grayscale(images), TF.rgb_to_grayscale(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [32, 224])
def test_blur_equals_torchvisions_with_a_sigma_an_image(generator, side):
    images = torch.rand(4, 3, side, side, generator=generator)
    sigma = torch.tensor([0.1, 0.7, 1.3, 2.0])
    kernel = 2 * max(1, round(side * 0.1) // 2) + 1
    theirs = [TF.gaussian_blur(i, [kernel, kernel], [float(s)] * 2) for i, s in zip(images, sigma, strict=True)]
    torch.testing.assert_close(geometry.gaussian_blur(images, sigma), torch.stack(theirs), rtol=0, atol=1e-5)


def test_affine_equals_torchvisions(generator):
    images = torch.rand(3, 3, 40, 40, generator=generator)
    rotation, zoom = torch.tensor([20.0, -7.0, 0.0]), torch.tensor([1.2, 0.8, 1.0])
    shift = torch.tensor([[0.1, -0.2], [0.0, 0.05], [-0.15, 0.0]])
    theirs = [
        # torchvision counts angles clockwise and shifts as (right, down) in pixels.
        TF.affine(i, angle=-float(r), translate=[float(40 * s[1]), float(40 * s[0])], scale=float(z), shear=[0.0, 0.0],
                  interpolation=InterpolationMode.BILINEAR)
        for i, r, z, s in zip(images, rotation, zoom, shift, strict=True)
    ]  # fmt: skip
    torch.testing.assert_close(
        geometry.affine(images, rotation, zoom, shift, 40), torch.stack(theirs), rtol=0, atol=1e-3
    )


def test_fit_equals_torchvisions_resize_and_centre_crop(generator):
    image = torch.randint(0, 256, (1, 3, 50, 80), generator=generator, dtype=torch.uint8)
    theirs = TF.center_crop(TF.resize(image.float() / 255, [32], antialias=True), [28, 28])
    torch.testing.assert_close(augment.fit(image, 32, 28), theirs, rtol=0, atol=1e-5)


def test_recolour_changes_just_the_images_that_were_drawn(generator, draws):
    pixels = torch.rand(24, 3, 16, 16, generator=generator)
    settings = Augmentation()
    result = augment.recolour(pixels.clone(), draws, settings)
    untouched = ~(draws.jitter | draws.gray | (draws.sigma > 0))
    assert untouched.any()
    for i in range(24):
        assert torch.equal(result[i], pixels[i]) == bool(untouched[i])


def test_grey_views_are_grey(generator):
    pixels = torch.rand(24, 3, 16, 16, generator=generator)
    plain = {"seed": 0, "epoch": 0, "images": np.arange(24), "view": 0, "sizes": np.array([[16, 16]] * 24)}
    only_grey = Augmentation(flip_probability=0.0, jitter_probability=0.0, gray_probability=0.5)
    grey = draw_view(only_grey, **plain)
    result = augment.recolour(pixels, grey, only_grey)
    is_grey = (result.amax(dim=1) - result.amin(dim=1)).amax(dim=(1, 2)) < 1e-6
    assert torch.equal(is_grey, torch.from_numpy(grey.gray))


@pytest.mark.parametrize("form", ["resized_crop", "affine"])
def test_flipped_views_are_mirrored(generator, form):
    images = torch.randint(0, 256, (24, 3, 20, 30), generator=generator, dtype=torch.uint8)
    settings = Augmentation(geometry=form)
    draws = draw_view(settings, seed=0, epoch=0, images=np.arange(24), view=0, sizes=np.array([[20, 30]] * 24))
    assert 0 < draws.flip.sum() < 24
    unflipped = dataclasses.replace(draws, flip=np.zeros(24, dtype=bool))
    expected = augment.cut(images, unflipped, settings, 16)
    flipped = torch.from_numpy(draws.flip)
    expected[flipped] = expected[flipped].flip(3)
    torch.testing.assert_close(augment.cut(images, draws, settings, 16), expected, rtol=0, atol=1e-6)


def test_in_place_or_not_the_layout_changes_nothing(images, draws):
    settings = Augmentation(blur_probability=0.5)
    images = images[..., :40]
    draws = draw_view(settings, seed=1, epoch=2, images=np.arange(24), view=0, sizes=np.array([[40, 40]] * 24))
    one_by_one = [augment.recolour(images[i : i + 1].clone(), draws[i : i + 1], settings) for i in range(24)]
    together = augment.recolour(color.in_planes(images), draws, settings)
    torch.testing.assert_close(together, torch.cat(one_by_one), rtol=0, atol=1e-6)


def test_normalise():
    pixels = torch.full((1, 3, 2, 2), 0.5)
    result = augment.normalise(pixels, (0.5, 0.25, 0.0), (1.0, 0.5, 0.25))
    assert result[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0]
