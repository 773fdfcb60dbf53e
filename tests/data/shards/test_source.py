"""Local shards: what is read of them, in which order, and what becomes of damaged ones."""

import gc
import itertools
import os
import shutil
import tarfile

import numpy as np
import pytest
import torch
from sharded import add, bytes_of_copies, encoded, number_in, write_parquet, write_tar, write_tars

from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.kinds.parquet import ParquetSource
from stopgrad.data.open import open_images
from stopgrad.data.shards import place
from stopgrad.data.shards.index import ensure_index
from stopgrad.data.shards.order import layout_of
from stopgrad.data.shards.source import ShardedSource
from stopgrad.data.sources import Subset
from stopgrad.data.splits import hold_out, open_parts
from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError, DataError
from stopgrad.loader.loader import Loader
from stopgrad.settings import Data

COUNTS = [10, 7, 12, 9, 11, 11]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["tar", "parquet"])
def shards(request, tmp_path):
    """Six shards of 60 images, numbered throughout."""
    if request.param == "tar":
        write_tars(tmp_path / "set", COUNTS)
    else:
        starts = np.cumsum([0, *COUNTS]).tolist()
        for i, (start, stop) in enumerate(itertools.pairwise(starts)):
            write_parquet(tmp_path / "set" / f"train-{i:03}.parquet", range(start, stop))
    return f"{tmp_path / 'set'}/train-{{000..005}}.{request.param}"


def opened(path, **settings):
    return open_images(path, Data(shuffle_buffer=settings.pop("shuffle_buffer", 20), **settings)).train


def loader_of(source, rank=Rank(), **settings):  # noqa: B008
    given = {"image_size": 12, "batch_size": 6, "workers": 3, "shuffle_buffer": 20, **settings}
    config = Config().replace(**given)
    return Loader(load_images(source, shortest=64, strict=config.data.strict), config, rank)


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


def numbers(loader, start, stop):
    """The images of some steps, by what is drawn on them."""
    found = []
    for batch in loader.batches(start, stop):
        pixels = batch.whole[:, :, 0, 0].numpy()
        found.append((256 * pixels[:, 0].astype(int) + pixels[:, 1]).tolist())
    return found


def test_every_image_has_its_bytes_label_and_name(shards):
    source = opened(shards)
    assert isinstance(source, ShardedSource)
    assert len(source) == 60
    assert [number_in(source.read(i)) for i in range(60)] == list(range(60))
    assert [source.label(i) for i in range(60)] == [i % 2 for i in range(60)]
    assert source.labels_of(np.array([17, 3, 44])).tolist() == [1, 1, 0]
    assert list(source.class_names) == (["0", "1"] if shards.endswith("tar") else ["even", "odd"])
    assert source.name(10).endswith("train-001.tar/000010.png" if shards.endswith("tar") else "train-001.parquet/row 0")


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_has_every_image_once_over_all_processes(shards, world):
    parts = [numbers(loader_of(opened(shards), Rank(index, world)), 0, 10) for index in range(world)]
    seen = [number for part in parts for batch in part for number in batch]
    assert sorted(seen) == list(range(60))
    alone = numbers(loader_of(opened(shards)), 0, 10)
    together = [sorted(flat(batches)) for batches in zip(*parts, strict=True)]
    assert together == [sorted(batch) for batch in alone]


def test_going_on_in_the_middle_of_an_epoch_is_as_never_having_stopped(shards):
    whole = numbers(loader_of(opened(shards)), 0, 23)
    assert numbers(loader_of(opened(shards)), 0, 13) + numbers(loader_of(opened(shards), workers=1), 13, 23) == whole
    assert whole[:10] != whole[10:20]


def test_tar_and_parquet_give_equal_batches(tmp_path):
    write_tars(tmp_path / "a", [6] * 5)
    for i in range(5):
        write_parquet(tmp_path / "b" / f"train-{i}.parquet", range(6 * i, 6 * i + 6))
    one, two = (loader_of(opened(str(tmp_path / name))) for name in "ab")
    for a, b in zip(one.batches(0, 10), two.batches(0, 10), strict=True):
        assert torch.equal(one.views(a, torch.device("cpu")), two.views(b, torch.device("cpu")))


def test_a_small_set_without_a_buffer_is_shuffled_and_kept_as_others_are(tmp_path):
    write_tars(tmp_path / "set", COUNTS)
    source = opened(str(tmp_path / "set"), shuffle_buffer=0)
    assert layout_of(source) is None
    store = load_images(source, shortest=64)
    assert store.whereabouts == "in memory"
    assert layout_of(opened(str(tmp_path / "set"))) is not None


def test_a_large_set_is_read_shard_by_shard(tmp_path, monkeypatch):
    write_tars(tmp_path / "set", COUNTS)
    monkeypatch.setattr("stopgrad.data.shards.source.SMALL_BYTES", 1000)
    source = opened(str(tmp_path / "set"), shuffle_buffer=0)
    assert source.window == 10_000
    store = load_images(source, shortest=64)
    assert store.whereabouts == "decoded every epoch"
    assert isinstance(store.kept, range)


def test_small_parquet_files_are_held_in_memory_as_ever(tmp_path, monkeypatch):
    write_parquet(tmp_path / "set" / "train-0.parquet", range(8))
    write_parquet(tmp_path / "set" / "train-1.parquet", range(8, 12))
    for text in (str(tmp_path / "set"), f"{tmp_path}/set/train-{{0,1}}.parquet", f"{tmp_path}/set/*.parquet"):
        splits = open_images(text)
        assert isinstance(splits.train, ParquetSource), text
        assert len(splits.train) == 12
    monkeypatch.setattr(place, "SMALL_BYTES", 100)
    monkeypatch.setattr("stopgrad.data.kinds.shards.SMALL_BYTES", 100)
    large = open_images(tmp_path / "set").train
    assert isinstance(large, ShardedSource)
    assert [large.read(i) for i in range(12)] == [splits.train.read(i) for i in range(12)]
    assert large.labels_of(np.arange(12)).tolist() == [splits.train.label(i) for i in range(12)]
    assert list(large.class_names) == list(splits.train.class_names)


@pytest.mark.parametrize("beside", ["photo.png", "ants/photo.png"])
def test_an_archive_beside_images_is_left_alone(tmp_path, beside):
    write_tar(tmp_path / "set" / "original.tar", range(8))
    image = tmp_path / "set" / beside
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(encoded(0))
    source = open_images(tmp_path / "set").train
    assert (len(source), source.name(0)) == (1, str(image))


def test_one_archive_is_a_set(tmp_path):
    write_tar(tmp_path / "photos.tar", range(8))
    splits = open_images(tmp_path / "photos.tar")
    assert (splits.name, len(splits.train), splits.test) == ("photos.tar", 8, None)


def test_splits_by_name_share_their_classes(tmp_path):
    write_tars(tmp_path / "set", [6, 6], label=lambda number: ["ant", "bee", "cat"][number % 3])
    write_tar(tmp_path / "set" / "val-000.tar", range(4), label=lambda number: "cat" if number else "dog")
    (tmp_path / "set" / "logs").mkdir()
    splits = open_images(str(tmp_path / "set"))
    assert (len(splits.train), len(splits.test)) == (12, 4)
    assert list(splits.test.class_names) == ["ant", "bee", "cat"]
    assert [splits.test.label(i) for i in range(4)] == [-1, 2, 2, 2]
    parts = open_parts(str(tmp_path / "set"))
    assert len(parts) == 16
    assert parts.split(13) == "test"
    assert os.path.isabs(parts.path)


def test_classes_are_those_of_all_shards_by_value(tmp_path):
    write_tar(tmp_path / "a.tar", range(3), label=lambda number: 10)
    write_tar(tmp_path / "b.tar", range(3, 6), label=lambda number: 9)
    source = open_images(f"{tmp_path}/a.tar::{tmp_path}/b.tar").train
    assert list(source.class_names) == ["9", "10"]
    assert source.labels_of(np.arange(6)).tolist() == [1, 1, 1, 0, 0, 0]


def test_one_class_or_none_is_no_label(tmp_path):
    write_tar(tmp_path / "a.tar", range(3), label=lambda number: 1)
    write_tar(tmp_path / "b.tar", range(3), label=None)
    for name in "ab":
        source = open_images(tmp_path / f"{name}.tar").train
        assert (list(source.class_names), source.label(0)) == ([], -1)


def test_the_index_is_kept_and_made_anew_when_a_shard_changes(tmp_path, monkeypatch):
    (path,) = write_tars(tmp_path / "set", [5])
    assert len(opened(str(tmp_path / "set"))) == 5

    def refuse(*_):
        raise AssertionError("indexed again")

    with monkeypatch.context() as patch:
        patch.setattr("stopgrad.data.kinds.shards.make_entries", refuse)
        assert number_in(opened(str(tmp_path / "set")).read(3)) == 3
    write_tar(path, range(20, 28))
    assert number_in(opened(str(tmp_path / "set")).read(6)) == 26


def test_without_a_cache_the_index_is_temporary(tmp_path):
    write_tars(tmp_path / "set", [5])
    source = opened(str(tmp_path / "set"), cache="off")
    root = source._root
    assert root.is_dir()
    assert number_in(source.read(4)) == 4
    del source
    gc.collect()
    assert not root.exists()
    assert not (tmp_path / "cache").exists()


def test_where_nothing_can_be_kept(tmp_path, monkeypatch):
    write_tars(tmp_path / "set", [5])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be kept in .*/file/shards: Not a directory. cache = a folder"):
        opened(str(tmp_path / "set"), cache=str(tmp_path / "file"))
    monkeypatch.setattr("stopgrad.caching.AVAILABLE", False)
    with pytest.raises(DataError, match="has no locks on files"):
        opened(str(tmp_path / "set"))


def test_a_damaged_index_is_made_anew(tmp_path):
    write_tars(tmp_path / "set", [5])
    source = opened(str(tmp_path / "set"))
    for about in source._root.glob("*.index/about.json"):
        about.write_text("{")
    assert number_in(opened(str(tmp_path / "set")).read(4)) == 4


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_truncated_shard_is_counted_named_and_otherwise_used(tmp_path):
    paths = write_tars(tmp_path / "set", COUNTS)
    truncate(paths[1])
    source = opened(str(tmp_path / "set"))
    assert 50 < len(source) < 60
    loader = loader_of(source)
    assert len(flat(numbers(loader, 0, loader.steps_per_epoch))) == loader.steps_per_epoch * 6
    ((name, reason),) = loader.store.skipped.items()
    assert name == str(paths[1])
    assert "truncated after " in reason or "cut off after" in reason
    with pytest.raises(DataError, match=r"train-001\.tar cannot be read as a whole: "):
        load_images(source, shortest=64, strict=True)


def test_a_truncated_shard_of_a_small_set_is_named_too(tmp_path):
    paths = write_tars(tmp_path / "set", COUNTS)
    truncate(paths[1])
    store = load_images(opened(str(tmp_path / "set"), shuffle_buffer=0), shortest=64)
    assert list(store.skipped) == [str(paths[1])]


@pytest.mark.parametrize("change", ["gone", "replaced", "shortened", "written over"])
def test_a_shard_that_changes_on_the_way_is_counted_and_named_and_the_run_goes_on(tmp_path, change):
    paths = write_tars(tmp_path / "set", COUNTS)
    source = opened(str(tmp_path / "set"))
    if change in ("shortened", "written over"):
        source.read(20)  # open already
    if change == "gone":
        paths[2].unlink()
    elif change == "replaced":
        write_tar(tmp_path / "other.tar", range(100, 112))
        os.replace(tmp_path / "other.tar", paths[2])
    elif change == "shortened":
        os.truncate(paths[2], 2000)
    else:
        with open(paths[2], "r+b") as file:
            file.seek(600)
            file.write(b"other")
    loader = loader_of(source)
    seen = flat(numbers(loader, 0, 10))
    assert sorted(seen) == [*range(17), *range(29, 60)]
    assert sorted(loader.store.skipped) == [f"{paths[2]}/{number:06}.png" for number in range(17, 29)]
    reason = "No such file" if change == "gone" else "its shard has changed since the run began"
    assert all(reason in text for text in loader.store.skipped.values())
    with pytest.raises(DataError, match=r"train-002\.tar/0000\d\d\.png cannot be read"):
        list(loader_of(opened_as_it_was(source), strict=True).batches(0, 10))


def opened_as_it_was(source):
    abouts = [ensure_index(source._root, shard, lambda _: None) for shard in source.shards]
    return ShardedSource(source.shards, abouts, source._root, source._copies, buffer=20)


def test_an_image_that_is_none_is_skipped_alone(tmp_path):

    (path,) = write_tars(tmp_path / "set", [12])
    with tarfile.open(path, "a") as archive:
        add(archive, "bad.png", encoded(3)[:100])
    loader = loader_of(opened(str(tmp_path / "set")), batch_size=13)
    assert sorted(flat(numbers(loader, 0, 1))) == list(range(12))
    assert list(loader.store.skipped) == [f"{path}/bad.png"]


@pytest.mark.parametrize(("text", "message"), [
    ("none.tar", r"1 of 1 shards do not exist; the first: '.*none\.tar'"),
    ("train-{000..003}.tar", r"2 of 4 shards do not exist; the first: '.*train-002\.tar'"),
    ("train-*.tar::more-*.tar", r"more-\*\.tar' matches no file"),
    ("{0..999999999}.tar", r"means 1,000,000,000 shards"),
    ("{0..999}{0..999}.tar", r"means 1,000,000 shards"),
    ("packed.tar.gz", "is compressed, and images are read in place: unpack it"),
    ("packed", "is compressed"),
    ("list.json", "is no list of shards"),
])  # fmt: skip
def test_what_a_path_cannot_mean(tmp_path, monkeypatch, text, message):
    write_tars(tmp_path, [3, 3])
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.tar.gz").write_bytes(b"")
    (tmp_path / "packed.tar.gz").write_bytes(b"")
    (tmp_path / "list.json").write_text('{"shardlist": 3}')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_images(text)


def test_what_a_path_can_mean(tmp_path, monkeypatch):
    write_tars(tmp_path / "set", [3, 4, 5])
    (tmp_path / "set" / "index.json").write_text('{"shardlist": [{"url": "train-002.tar"}, {"url": "train-000.tar"}]}')
    monkeypatch.chdir(tmp_path)
    lengths = {
        "set": 12, "set/train-00?.tar": 12, "set/train-{000..001}.tar": 7, "set/train-{002..000}.tar": 12,
        "set/train-{000,002}.tar": 8, "set/train-000.tar::set/train-001.tar": 7, "set/index.json": 8,
    }  # fmt: skip
    assert {text: len(open_images(text).train) for text in lengths} == lengths


def test_kinds_are_not_mixed(tmp_path):
    write_tar(tmp_path / "a.tar", range(3))
    write_parquet(tmp_path / "b.parquet", range(3))
    with pytest.raises(DataError, match=r"means files of \.parquet, \.tar"):
        open_images(f"{tmp_path}/a.tar::{tmp_path}/b.parquet")


def test_shards_without_an_image(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<html>no</html>" * 100)
    with pytest.raises(DataError, match=r"1 shards hold no image; the first: .*a\.tar: no tar archive"):
        open_images(tmp_path / "a.tar")


def test_held_out_images_are_the_last_ones(tmp_path):
    write_tars(tmp_path / "set", COUNTS)
    train, held = hold_out(opened(str(tmp_path / "set")), 15)
    assert isinstance(train, Subset)
    assert [number_in(held.read(i)) for i in range(15)] == list(range(45, 60))
    seen = numbers(loader_of(train, batch_size=5), 0, 9)
    assert sorted(flat(seen)) == list(range(45))


def test_copies_of_parquet_stay_within_their_room(tmp_path):
    for i in range(20):
        write_parquet(tmp_path / "set" / f"train-{i:03}.parquet", range(8 * i, 8 * i + 8))
    with pytest.raises(ConfigError, match="shard_cache_gb = 5e-05: 10 shards of up to"):
        opened(str(tmp_path / "set"), shard_cache_gb=5e-5)
    source = opened(str(tmp_path / "set"), shard_cache_gb=1.1e-4)
    largest = 0
    loader = loader_of(source, batch_size=8)
    for _ in loader.batches(0, 40):
        largest = max(largest, bytes_of_copies(source._root))
    assert not loader.store.skipped
    assert 0 < largest <= 110_000
    assert len(list(source._root.glob("*.shard"))) < 20


def test_monitors_take_images_of_few_shards(tmp_path):
    write_tars(tmp_path / "set", [6] * 30)
    store = load_images(opened(str(tmp_path / "set")), shortest=64)
    drawn = store.draw(5, np.random.default_rng(0))
    assert len(np.unique(drawn // 6)) <= 4
    assert len(np.unique(np.array(store.spread(5)) // 6)) <= 4
    assert store.labels_of(drawn.tolist()).tolist() == [position % 2 for position in drawn]
    assert store.labels.tolist() == [position % 2 for position in range(180)]


def test_a_killed_builder_leaves_nothing_that_hurts(tmp_path):
    (path,) = write_tars(tmp_path / "set", [5])
    source = opened(str(tmp_path / "set"))
    root, key = source._root, source.shards[0].key
    shutil.rmtree(root / f"{key}.index")
    (root / f"{key}.index.tmp").mkdir()
    (root / f"{key}.index.tmp" / "about.json").write_text("{")
    assert number_in(opened(str(tmp_path / "set")).read(4)) == 4
    assert path.exists()
