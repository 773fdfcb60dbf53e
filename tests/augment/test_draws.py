import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from stopgrad.augment.draws import draw_view, uniforms
from stopgrad.settings import Augmentation


def draw(images, *, seed=0, epoch=0, view=0, size=(32, 32), **settings):
    images = np.asarray(images)
    return draw_view(
        Augmentation(**settings), seed=seed, epoch=epoch, images=images, view=view, sizes=np.array([size] * len(images))
    )


def fields(draws):
    return {name: np.asarray(value) for name, value in vars(draws).items()}


def test_draws_depend_on_the_image_not_on_its_batch():
    together, alone = fields(draw([3, 8, 21])), fields(draw([8]))
    for name, values in together.items():
        np.testing.assert_array_equal(values[1], alone[name][0])


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"view": 1}])
def test_seed_epoch_and_view_each_matter(other):
    assert not np.array_equal(draw(range(20)).box, draw(range(20), **other).box)


def test_switching_one_augmentation_moves_no_other():
    plain, blurred = fields(draw(range(50))), fields(draw(range(50), blur_probability=1.0, flip_probability=0.0))
    for name in ("box", "jitter", "factors", "order", "gray"):
        np.testing.assert_array_equal(plain[name], blurred[name])


def test_uniforms_are_uniform_and_independent():
    numbers = uniforms(0, 0, np.arange(20_000), 0, 4)
    assert 0 <= numbers.min() < numbers.max() < 1
    # Five standard errors of a mean of 20,000, and of a correlation.
    assert np.abs(numbers.mean(axis=0) - 0.5).max() < 5 * (1 / 12) ** 0.5 / 20_000**0.5
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 5 / 20_000**0.5
    histogram = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert np.abs(histogram - 4000).max() < 5 * 4000**0.5


def test_neighbouring_words_are_unrelated():
    base = uniforms(0, 0, np.arange(20_000), 0, 1)[:, 0]
    for seed, epoch, view, shift in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)):
        other = uniforms(seed, epoch, np.arange(20_000) + shift, view, 1)[:, 0]
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / 20_000**0.5


def test_probabilities_and_ranges_are_kept():
    d = draw(range(10_000), blur_probability=0.5)
    for mask, probability in ((d.flip, 0.5), (d.jitter, 0.8), (d.gray, 0.2), (d.sigma > 0, 0.5)):
        assert abs(mask.mean() - probability) < 5 * (0.25 / 10_000) ** 0.5
    assert 0.6 <= d.factors[:, :3].min() < 0.61
    assert 1.39 < d.factors[:, :3].max() <= 1.4
    assert np.abs(d.factors[:, 3]).max() <= 0.1
    assert np.array_equal(np.sort(d.order, axis=1), np.tile(np.arange(4), (10_000, 1)))
    assert len(np.unique(d.order, axis=0)) == 24


@pytest.mark.parametrize("size", [(32, 32), (100, 160), (20, 200)])
def test_boxes_are_distributed_as_torchvisions(size):
    d = draw(range(4000), size=size, crop_scale_min=0.2)
    torch.manual_seed(0)
    image = torch.zeros(1, *size)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    top, left, height, width = d.box.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()
    for ours, other in zip(d.box.T, theirs.T, strict=True):
        error = np.hypot(ours.std(), other.std()) / 4000**0.5
        assert abs(ours.mean() - other.mean()) < 5 * error + 1e-9
        assert ours.std() == pytest.approx(other.std(), rel=0.1, abs=1e-9)
