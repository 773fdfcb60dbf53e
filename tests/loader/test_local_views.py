"""Batches with local views, and crops that are turned in the worker threads."""

import dataclasses

import numpy as np
import pytest
import torch

from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.pixels import PixelFormat
from stopgrad.data.sources import ArraySource, ListSource
from stopgrad.distributed.rank import Rank
from stopgrad.loader.labelled import LabelledViews
from stopgrad.loader.loader import Loader, _crop
from stopgrad.loader.preprocess import shortest_of

CPU = torch.device("cpu")


@pytest.fixture(params=["even", "uneven"])
def store(request, rng):
    if request.param == "even":
        return load_images(ArraySource(rng.integers(0, 256, (50, 24, 24, 3), dtype=np.uint8)), shortest=64)
    images = [rng.integers(0, 256, (24 + i % 5, 28, 3), dtype=np.uint8) for i in range(50)]
    return load_images(ListSource(images), shortest=64)


def loader(store, rank=None, **settings):
    config = Config().replace(**{"image_size": 16, "batch_size": 8, "workers": 2, **settings})
    return Loader(store, config, rank or Rank())


def parts(loader, start, stop):
    return [loader.all_views(batch, CPU) for batch in loader.batches(start, stop)]


@pytest.mark.parametrize("geometry", ["resized_crop", "affine"])
def test_views_are_the_same_with_local_ones_beside_them(store, geometry):
    plain, with_local = (
        parts(loader(store, geometry=geometry, **more), 0, 3) for more in ({}, {"local_views": 3, "local_size": 8})
    )
    for (alone,), (views, local) in zip(plain, with_local, strict=True):
        assert torch.equal(alone, views)
        assert local.shape == (3, 8, 3, 8, 8)
        assert local[0].is_contiguous(memory_format=torch.channels_last)
        assert len({float(view.sum()) for view in local}) == 3


def test_local_views_go_on_as_never_having_stopped(store):
    settings = {"local_views": 2, "early_size": 12, "early_share": 0.5, "steps": 8}
    whole = parts(loader(store, **settings), 0, 8)
    again = parts(loader(store, **settings), 0, 3) + parts(loader(store, **settings), 3, 8)
    for (views, local), (other_views, other_local) in zip(whole, again, strict=True):
        assert torch.equal(views, other_views)
        assert torch.equal(local, other_local)
    # The views grow; local ones keep their side.
    assert [(v.shape[3], local.shape[3]) for v, local in whole] == [(12, 8)] * 4 + [(16, 8)] * 4


def test_local_views_are_of_the_image_not_of_its_process(store):
    def local_of(loader):
        (batch,) = loader.batches(2, 3)
        return dict(zip(batch.positions.tolist(), loader.all_views(batch, CPU)[1].unbind(1), strict=True))

    together = local_of(loader(store, local_views=2))
    shares = {}
    for index in range(2):
        shares |= local_of(loader(store, Rank(index, 2), local_views=2))
    assert shares.keys() == together.keys()
    for position, views in shares.items():
        torch.testing.assert_close(views, together[position], rtol=0, atol=1e-5)


def test_local_crops_are_of_their_own_range(store):
    (batch,) = loader(store, local_views=4, local_scale_min=0.1, local_scale_max=0.3, geometry="affine").batches(0, 1)
    area = batch.local.draws.box[:, 2:].prod(axis=1)
    whole = 24 * 24 if store.stacked is not None else 28 * 28
    assert len(area) == 4 * 8
    assert 0.05 * whole < area.min() < area.max() < 0.4 * whole


def test_nothing_local_without_being_asked(store):
    (batch,) = loader(store).batches(0, 1)
    assert batch.local is None
    labelled = LabelledViews(store, Config().replace(image_size=16, batch_size=8, local_views=2), CPU)
    assert next(labelled.batches(0, 1)).local is None


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_of_worker_threads_are_turned_exactly(rng, quarters, upside_down, mirrored):
    image, box = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), np.array([2, 3, 15, 18])
    plain = _crop(12, image, box, np.False_, np.False_, np.int64(0))
    expected = plain.flip([axis for axis, drawn in ((1, upside_down), (2, mirrored)) if drawn])
    turned = _crop(12, image, box, np.bool_(mirrored), np.bool_(upside_down), np.int64(quarters))
    assert torch.equal(turned, torch.rot90(expected, quarters, (1, 2)))


def test_deep_images_of_other_channels_are_turned_and_have_local_views(rng):
    images = [rng.integers(0, 65536, (24 + i % 3, 26, 2), dtype=np.uint16) for i in range(16)]
    plain = {"mean": (0.5, 0.5), "std": (0.25, 0.25), "jitter_probability": 0.0, "gray_probability": 0.0}
    store = load_images(ListSource(images), shortest=64, pixels=PixelFormat(2, 16))
    (views, _), (turned, local) = (
        parts(loader(store, local_views=2, turn_probability=p, **plain), 0, 1)[0] for p in (0.0, 1.0)
    )
    assert (views.shape, local.shape) == ((2, 8, 2, 16, 16), (2, 8, 2, 8, 8))
    # The same values in other places.
    assert not torch.equal(views, turned)
    assert torch.equal(views.flatten(3).sort().values, turned.flatten(3).sort().values)


def test_turns_reach_the_views_whether_cut_here_or_there(store):
    """Without colours, a batch that is turned has the same pixels as one that is not, in other places."""
    plain = {"jitter_probability": 0.0, "gray_probability": 0.0}
    ((views,),) = parts(loader(store, **plain), 0, 1)
    turning = loader(store, **plain, turn_probability=1.0)
    (batch,) = turning.batches(0, 1)
    assert batch.draws.quarters.min() == 1
    turned = turning.views(batch, CPU).flatten(0, 1)
    expected = [torch.rot90(x, int(k), (1, 2)) for x, k in zip(views.flatten(0, 1), batch.draws.quarters, strict=True)]
    assert torch.equal(turned, torch.stack(expected))


def test_images_are_kept_large_enough_for_local_crops():
    config = Config().replace(image_size=64, crop_scale_min=0.9)
    local = dataclasses.replace(config).replace(local_views=2, local_size=32, local_scale_min=0.04)
    assert shortest_of(config) < 32 / 0.2 <= shortest_of(local)
