import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.cache.store import load_images
from stopgrad.data.kinds.folders import FileSource
from stopgrad.data.sources import ArraySource, ListSource
from stopgrad.errors import DataError


@pytest.fixture
def photos(tmp_path, rng):
    paths = []
    for i in range(10):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def break_files(paths):
    paths[2].write_bytes(b"")
    paths[5].write_bytes(paths[5].read_bytes()[:100])
    paths[7].write_text("no image")


def test_one_size_is_stacked(rng):
    images = rng.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
    store = load_images(ArraySource(images), shortest=64)
    assert store.stacked.shape == (6, 3, 8, 9)
    np.testing.assert_array_equal(store.pixels(4), images[4])


def test_several_sizes_are_held_one_by_one(photos):
    store = load_images(FileSource(photos), shortest=64)
    assert store.stacked is None
    assert [store.pixels(i).shape for i in range(10)] == [(20 + i, 30, 3) for i in range(10)]


def test_what_does_not_fit_is_decoded_when_needed(photos):
    held = load_images(FileSource(photos), shortest=64)
    streamed = load_images(FileSource(photos), shortest=64, memory_gb=1e-9)
    assert streamed.decoded is None
    for i in range(10):
        np.testing.assert_array_equal(streamed.pixels(i), held.pixels(i))


@pytest.mark.parametrize("memory_gb", [1.0, 1e-9])
def test_unreadable_files_are_skipped_counted_and_named(photos, memory_gb):
    break_files(photos)
    store = load_images(FileSource(photos), shortest=64, memory_gb=memory_gb)
    readable = [i for i in range(len(store)) if store.pixels(i) is not None]
    assert len(readable) == 7
    assert sorted(store.skipped) == [str(photos[i]) for i in (2, 5, 7)]
    assert store.skipped[str(photos[2])] == "empty file"


def test_strict_refuses_and_names_the_file(photos):
    break_files(photos)
    with pytest.raises(DataError, match=r"2\.png cannot be read: empty file"):
        load_images(FileSource(photos), shortest=64, strict=True)


def test_a_file_that_vanished_is_skipped(photos):
    photos[3].unlink()
    store = load_images(FileSource(photos), shortest=64)
    assert store.skipped == {str(photos[3]): "No such file or directory"}
    assert 3 not in store.kept


def test_no_readable_image(photos):
    for path in photos:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 10 images can be read"):
        load_images(FileSource(photos), shortest=64)


def test_nothing_at_all():
    with pytest.raises(DataError, match="none of 0"):
        load_images(ListSource([]), shortest=64)


def test_fingerprint_tells_data_sets_apart(rng):
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    prints = {
        load_images(source, shortest=64).fingerprint()
        for source in (
            ArraySource(images),
            ArraySource(images[:5]),
            ArraySource(images, [0] * 6, ["a", "b"]),
            ArraySource(images, name="other"),
        )
    }
    assert len(prints) == 4


def test_labels(rng):
    images = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    assert torch.equal(
        load_images(ArraySource(images, [2, 0, 1], list("abc")), shortest=64).labels, torch.tensor([2, 0, 1])
    )
    assert torch.equal(load_images(ArraySource(images), shortest=64).labels, torch.tensor([-1, -1, -1]))


def test_progress_counts_every_image(photos):
    seen = []
    load_images(FileSource(photos), shortest=64, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 10) for i in range(10)]
