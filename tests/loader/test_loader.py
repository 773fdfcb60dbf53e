import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sharded import write_tars

from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.data.shards.order import layout_of
from stopgrad.data.sources import ArraySource, ListSource
from stopgrad.distributed.rank import Rank
from stopgrad.errors import DataError
from stopgrad.loader.loader import Loader
from stopgrad.settings import Data


@pytest.fixture
def even(rng):
    return load_images(ArraySource(rng.integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)), shortest=64)


@pytest.fixture
def uneven(rng):
    """Images of several sizes: cut in worker threads instead of on the device."""
    images = [rng.integers(0, 256, (16 + i % 5, 20, 3), dtype=np.uint8) for i in range(50)]
    return load_images(ListSource(images), shortest=64)


def config(**settings):
    return Config().replace(**{"image_size": 12, "batch_size": 8, "workers": 2, **settings})


def all_views(loader, start, stop):
    return [loader.views(batch, torch.device("cpu")) for batch in loader.batches(start, stop)]


def test_an_epoch_sees_every_image_at_most_once(even):
    loader = Loader(even, config(), Rank())
    assert loader.steps_per_epoch == 6
    seen = np.concatenate([loader.indices(step) for step in range(6)])
    assert len(np.unique(seen)) == len(seen) == 48


def test_order_is_a_function_of_seed_and_epoch(even):
    loader, again = (Loader(even, config(), Rank()) for _ in range(2))
    other = Loader(even, config(seed=1), Rank())
    assert np.array_equal(loader.indices(3), again.indices(3))
    assert not np.array_equal(loader.indices(3), loader.indices(3 + 6))
    assert not np.array_equal(loader.indices(3), other.indices(3))


@pytest.mark.parametrize("kind", ["even", "uneven"])
@pytest.mark.parametrize("geometry", ["resized_crop", "affine"])
def test_going_on_is_as_never_having_stopped(kind, geometry, request):
    loader = Loader(request.getfixturevalue(kind), config(geometry=geometry), Rank())
    whole = all_views(loader, 0, 9)
    parts = all_views(loader, 0, 4) + all_views(loader, 4, 9)
    assert whole[0].shape == (2, 8, 3, 12, 12)
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)


def test_views_differ_and_lie_channels_last(even):
    (views,) = all_views(Loader(even, config(views=4), Rank()), 0, 1)
    assert views.shape[0] == 4
    assert len({float(view.sum()) for view in views}) == 4
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in views)


def test_cutting_in_threads_equals_cutting_on_the_device(rng):
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    images = [image] * 16
    on_device = Loader(load_images(ArraySource(np.stack(images)), shortest=64), config(), Rank())
    # One image of another size makes the batch uneven; its views are not looked at.
    in_threads = Loader(load_images(ListSource([*images, image[:15]]), shortest=64), config(), Rank())
    with ThreadPoolExecutor(2) as pool:
        a, b = (
            loader.views(loader.load(np.arange(num), 0, pool), torch.device("cpu"))[:, :16]
            for loader, num in ((on_device, 16), (in_threads, 17))
        )
    # Pillow rounds to whole grey levels between its two passes.
    scale = min(config().augmentation.std)
    assert (a - b).abs().mean() < 1.0 / 255 / scale


def test_processes_share_a_batch(even):
    whole = Loader(even, config(), Rank())
    shares = [Loader(even, config(), Rank(index, 2)) for index in range(2)]
    for step in (0, 7):
        together = np.concatenate([share.indices(step) for share in shares])
        assert sorted(together) == sorted(whole.indices(step))
        assert all(len(share.indices(step)) == 4 for share in shares)


def test_a_large_batch_shrinks_to_the_images_there_are(even):
    loader = Loader(even, config(batch_size=64), Rank())
    assert (loader.batch_size, loader.steps_per_epoch) == (50, 1)
    # As for one process; with local statistics each process's part is of one size.
    assert Loader(even, config(batch_size=64, batch_statistics="global"), Rank(0, 4)).batch_size == 50
    assert Loader(even, config(batch_size=64, batch_statistics="local"), Rank(0, 4)).batch_size == 48
    grouped = Loader(even, config(batch_size=64, batch_groups=4), Rank())
    assert (grouped.batch_size, grouped.groups, grouped.statistics) == (48, 4, "local")


def test_processes_know_where_their_images_stand_in_the_batch(rng):
    images = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(16)]
    images[3] = b"broken"
    store = load_images(ListSource(images), shortest=64, memory_gb=1e-9)
    whole = Loader(store, config(batch_size=16), Rank()).indices(0)
    found = {}
    for index in range(3):
        loader = Loader(store, config(batch_size=16, batch_statistics="global"), Rank(index, 3))
        (batch,) = loader.batches(0, 1)
        rows, most = loader.rows(batch, 0)
        assert most == 6
        found |= dict(zip(rows, batch.positions.tolist(), strict=True))
    assert found == {row: position for row, position in enumerate(whole.tolist()) if position != 3}


@pytest.mark.parametrize("kind", ["even", "shards"])
def test_another_number_of_processes_goes_on_without_skipping_or_repeating_an_image(kind, even, tmp_path):
    """Two epochs, of which the processes become other ones in the middle of each."""
    if kind == "shards":
        write_tars(tmp_path, [7, 9, 8, 11])
        store = load_images(open_images(str(tmp_path / "*.tar"), Data(shuffle_buffer=9)).train, shortest=64)
        assert layout_of(store.source) is not None
    else:
        store = even
    settings = config(batch_size=8, batch_statistics="global")
    alone = Loader(store, settings, Rank())
    for step in range(2 * alone.steps_per_epoch):
        world = 1 + step % 3
        shares = [Loader(store, settings, Rank(index, world)).indices(step) for index in range(world)]
        assert sorted(np.concatenate(shares).tolist()) == sorted(np.asarray(alone.indices(step)).tolist())
    first = np.concatenate([np.asarray(alone.indices(step)) for step in range(alone.steps_per_epoch)])
    assert len(set(first.tolist())) == len(first) == 8 * alone.steps_per_epoch


def test_images_that_turn_out_unreadable_leave_the_batch(rng):
    images = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(16)]
    images[3] = b"broken"
    store = load_images(ListSource(images), shortest=64, memory_gb=1e-9)
    loader = Loader(store, config(batch_size=16), Rank())
    (batch,) = loader.batches(0, 1)
    assert len(batch) == 15
    assert list(store.skipped) == ["image 3"]


def test_a_batch_without_readable_images_is_an_error(rng):
    good = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    store = load_images(ListSource([good] * 16), shortest=64, memory_gb=1e-9)
    store.source.images = [b"broken"] * 16
    with pytest.raises(DataError, match="only 0 of 8 images"):
        list(Loader(store, config(), Rank()).batches(0, 1))


@pytest.mark.parametrize("kind", ["even", "uneven"])
def test_views_are_smaller_in_the_first_part_of_the_run(kind, request):
    settings = config(steps=8, early_size=6, early_share=0.5)
    loader = Loader(request.getfixturevalue(kind), settings, Rank())
    assert [views.shape[3] for views in all_views(loader, 2, 6)] == [6, 6, 12, 12]


def test_leaving_early_ends_the_threads(even):
    before = threading.active_count()
    batches = Loader(even, config(), Rank()).batches(0, 1000)
    next(batches)
    batches.close()
    assert threading.active_count() == before
