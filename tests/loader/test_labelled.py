import numpy as np
import pytest
import torch

from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.sources import ArraySource, ListSource
from stopgrad.loader.labelled import LabelledViews

CPU = torch.device("cpu")


@pytest.fixture
def store(rng):
    """Each image as bright as its label says."""
    labels = list(range(50))
    pixels = np.stack([np.full((16, 16, 3), 5 * label, dtype=np.uint8) for label in labels])
    return load_images(ArraySource(pixels, labels, [str(i) for i in labels]), shortest=64)


def config(batch_size, **settings):
    plain = {"jitter_probability": 0.0, "gray_probability": 0.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return Config().replace(image_size=12, batch_size=batch_size, workers=2, **plain, **settings)


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(8, [8, 7, 7, 7, 7, 7, 7]), (49, [25, 25]), (500, [50]), (2, [2] * 25)]
)
def test_an_epoch_sees_every_image_once_and_no_batch_is_small(store, batch_size, sizes):
    views = LabelledViews(store, config(batch_size), CPU)
    batches = list(views.batches(0, 2 * views.steps_per_epoch))
    assert [len(batch) for batch in batches] == 2 * sizes
    first, second = (
        np.concatenate([b.positions for b in part]) for part in (batches[: len(sizes)], batches[len(sizes) :])
    )
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)


def test_an_odd_number_of_images_leaves_nobody_alone(store):
    views = LabelledViews(store, config(2), CPU, np.arange(3))
    assert [len(batch) for batch in views.batches(0, views.steps_per_epoch)] == [3]


def test_labels_stand_beside_their_images(store):
    views = LabelledViews(store, config(8), CPU)
    for batch in views.batches(0, 3):
        brightness = (views.views(batch)[:, 0, 6, 6] * 255 / 5).round().long()
        assert torch.equal(brightness, views.labels_of(batch))


def test_only_some_positions(store):
    views = LabelledViews(store, config(4), CPU, np.array([3, 9, 27, 41]))
    assert {int(p) for batch in views.batches(0, 3) for p in batch.positions} == {3, 9, 27, 41}


def test_unreadable_images_found_on_the_way_take_their_labels_along(rng):
    images = [rng.integers(0, 256, (16, 17, 3), dtype=np.uint8) for _ in range(8)]
    source = ListSource([*images, b"no image", *images])
    store = load_images(source, shortest=64, memory_gb=0.0)
    views = LabelledViews(store, config(17), CPU)
    (batch,) = views.batches(0, 1)
    assert len(batch) == 16
    assert 8 not in batch.positions
    assert views.views(batch).shape[0] == len(views.labels_of(batch)) == 16
