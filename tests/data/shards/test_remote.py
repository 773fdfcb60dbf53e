"""Shards behind a web server: the same images, fetched ahead, within their room; and servers that fail."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from serving import serving, wait_until
from sharded import bytes_of_copies, number_in, write_parquet, write_tar, write_tars

from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.data.place import check_there
from stopgrad.data.shards import copies as copies_module
from stopgrad.data.shards import remote
from stopgrad.data.shards import source as source_module
from stopgrad.data.shards.copies import Copies
from stopgrad.data.shards.index import Shard
from stopgrad.data.splits import open_parts
from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError, DataError
from stopgrad.loader.loader import Loader
from stopgrad.settings import Data

pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "BACKOFF_SECONDS", 0.01)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(remote, "STALL_SECONDS", 0.5)


@pytest.fixture
def served(tmp_path):
    (tmp_path / "set").mkdir()
    with serving(tmp_path / "set") as server:
        yield server


def opened(path, **settings):
    return open_images(str(path), Data(shuffle_buffer=settings.pop("shuffle_buffer", 20), **settings)).train


def loader_of(source, **settings):
    config = Config().replace(**{"image_size": 12, "batch_size": 6, "workers": 3, **settings})
    return Loader(load_images(source, shortest=64, strict=config.data.strict), config, Rank())


def views(loader, steps):
    return [loader.views(batch, torch.device("cpu")) for batch in loader.batches(0, steps)]


def copies_in(source):
    return list(source._root.glob("*.shard"))


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_batches_are_those_of_local_shards(served, suffix, ranges):
    served.ranges = ranges
    for i in range(5):
        write = write_tar if suffix == "tar" else write_parquet
        write(served.folder / f"train-{i}.{suffix}", range(6 * i, 6 * i + 6))
    local = opened(f"{served.folder}/train-{{0..4}}.{suffix}")
    far = opened(f"{served.address}/train-{{0..4}}.{suffix}?signature=secret")
    assert list(far.class_names) == list(local.class_names)
    assert far.labels_of(np.arange(30)).tolist() == local.labels_of(np.arange(30)).tolist()
    assert far.name(7).startswith(f"{served.address}/train-1.{suffix}/")
    for a, b in zip(views(loader_of(local), 10), views(loader_of(far), 10), strict=True):
        assert torch.equal(a, b)


def test_a_small_set_is_shuffled_as_a_local_one(served):
    write_tars(served.folder, [9, 9])
    local, far = (
        opened(f"{place}/train-{{000..001}}.tar", shuffle_buffer=0) for place in (served.folder, served.address)
    )
    for a, b in zip(views(loader_of(local), 6), views(loader_of(far), 6), strict=True):
        assert torch.equal(a, b)


def test_shards_are_fetched_once_and_indexed_once(served):
    write_tars(served.folder, [6] * 5)
    address = f"{served.address}/train-{{000..004}}.tar"
    for _ in range(2):
        views(loader_of(opened(address)), 10)
    assert sorted(served.sent) == [f"train-{i:03}.tar" for i in range(5)]


def test_the_next_shards_are_fetched_before_they_are_asked_for(served, tmp_path):
    write_tars(served.folder, [6] * 12)
    source = opened(f"{served.address}/train-{{000..011}}.tar")
    for file in copies_in(source):
        file.unlink()
    served.sent.clear()
    loader = loader_of(source)
    order = loader._order(0)
    order[:1]
    wait_until(lambda: len(served.sent) == len(order.groups[0]) + len(order.groups[1]))
    assert set(served.sent) == {f"train-{shard:03}.tar" for group in order.groups[:2] for shard in group}


def test_read_in_order_the_next_shard_is_fetched(served):
    write_tars(served.folder, [6] * 6)
    source = opened(f"{served.address}/train-{{000..005}}.tar")
    for file in copies_in(source):
        file.unlink()
    served.sent.clear()
    source.read(0)
    wait_until(lambda: "train-001.tar" in served.sent)


def test_copies_stay_within_their_room(served):
    write_tars(served.folder, [6] * 20)
    size = (served.folder / "train-000.tar").stat().st_size
    source = opened(f"{served.address}/train-{{000..019}}.tar", shard_cache_gb=11 * size / 1e9)
    assert bytes_of_copies(source._root) <= 11 * size
    loader = loader_of(source)
    for _ in loader.batches(0, 40):
        assert bytes_of_copies(source._root) <= 11 * size
    assert not loader.store.skipped


def test_too_little_room_is_said_at_once(served):
    write_tars(served.folder, [6] * 20)
    with pytest.raises(ConfigError, match=r"10 shards of up to .* are read or fetched at a time"):
        opened(f"{served.address}/train-{{000..019}}.tar", shard_cache_gb=1e-4)


@pytest.mark.parametrize(("status", "message"), [
    (404, "404 Not Found. Check the address"), (403, "403 Forbidden"), (503, "503 Service Unavailable"),
])  # fmt: skip
def test_a_shard_that_cannot_be_had_is_named_with_the_status(served, status, message):
    write_tars(served.folder, [6, 6])
    served.fails["train-001.tar"] = status, 1000
    with pytest.raises(DataError, match=rf"/train-001\.tar' cannot be read: {message}"):
        opened(f"{served.address}/train-{{000..001}}.tar")


def test_a_server_that_fails_for_a_moment_is_asked_again(served):
    write_tars(served.folder, [6, 6])
    served.fails["train-001.tar"] = 503, 3
    assert len(opened(f"{served.address}/train-{{000..001}}.tar")) == 12


def test_no_server(served):
    address = served.address
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/a\.tar' cannot be read: .*Check the address"):
        opened("http://127.0.0.1:1/a.tar")
    assert address


def test_a_server_that_stalls_is_given_up(served, impatient):
    write_tars(served.folder, [6, 6])
    served.stalls.add("train-001.tar")
    with pytest.raises(
        DataError, match=r"train-001\.tar cannot be read: download failed 3 times: nothing came for 0\.5"
    ):
        opened(f"{served.address}/train-{{000..001}}.tar")
    assert not list(served.folder.parent.glob("cache/shards/*.part"))


@pytest.mark.parametrize(("change", "reason"), [
    ("gone", "404 Not Found"), ("other", "its shard has changed since the run began"),
    ("stalls", "download failed 3 times: nothing came for 0.5 seconds"),
])  # fmt: skip
def test_a_shard_that_fails_on_the_way_is_counted_and_named_and_the_run_goes_on(served, request, change, reason):
    write_tars(served.folder, [6] * 6)
    source = opened(f"{served.address}/train-{{000..005}}.tar")
    for file in copies_in(source):
        file.unlink()
    if change == "gone":
        (served.folder / "train-002.tar").unlink()
    elif change == "other":
        write_tar(served.folder / "train-002.tar", range(50, 57))
    else:
        request.getfixturevalue("impatient")
        served.stalls.add("train-002.tar")
    loader = loader_of(source, batch_size=9)
    seen = [position for batch in loader.batches(0, 4) for position in batch.positions.tolist()]
    assert sorted(seen) == [*range(12), *range(18, 36)]
    assert set(loader.store.skipped) == {f"{served.address}/train-002.tar/{n:06}.png" for n in range(12, 18)}
    assert set(loader.store.skipped.values()) == {reason}


def test_a_failed_shard_is_not_asked_for_again_at_once(served):
    write_tars(served.folder, [6] * 2)
    source = opened(f"{served.address}/train-{{000..001}}.tar")
    for file in copies_in(source):
        file.unlink()
    served.fails["train-001.tar"] = 404, 1000
    for index in range(6, 12):
        with pytest.raises(OSError, match="404 Not Found"):
            source.read(index)
    assert served.fails["train-001.tar"][1] >= 1000 - 4


def test_a_truncated_shard_is_named(served):
    paths = write_tars(served.folder, [6] * 6)
    paths[3].write_bytes(paths[3].read_bytes()[:4000])
    source = opened(f"{served.address}/train-{{000..005}}.tar")
    assert 30 < len(source) < 36
    assert list(source.damaged) == [f"{served.address}/train-003.tar"]


def test_what_an_address_cannot_mean():
    for text, error, message in (
        ("https://host/a.zip", ConfigError, r"needs addresses of \.tar or \.parquet files"),
        ("https://host/train-*.tar", ConfigError, "a web server lists no files"),
        ("ftp://host/a.tar", ConfigError, "shards are read from s3://, gs://, http://, https:// and paths"),
        ("https://user:secret@host/a.zip?key=secret", ConfigError, "'https://host/a.zip'"),
        ("https://host/{0..9999999}.tar", DataError, "means 10,000,000 shards"),
    ):
        with pytest.raises(error, match=message) as caught:
            check_there(text)
        assert "secret" not in str(caught.value)


def test_a_list_of_shards(served):
    write_tars(served.folder, [3, 4])
    (served.folder / "index.json").write_text('{"shardlist": [{"url": "train-001.tar"}, {"url": "train-000.tar"}]}')
    source = opened(f"{served.address}/index.json")
    assert [number_in(source.read(i)) for i in range(7)] == [3, 4, 5, 6, 0, 1, 2]


def test_a_missing_library_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs fsspec: pip install 'stopgrad\[remote\]'"):
        check_there("https://host/a.tar")


def test_parts_know_the_address(served):
    write_tars(served.folder, [3])
    address = f"{served.address}/train-000.tar"
    parts = open_parts(address)
    assert (parts.path, len(parts)) == (address, 3)
    assert number_in(parts.read(2)) == 2
    assert len(parts.digest()) == 64


SHARE = """
import sys
from stopgrad.data.open import open_images
from stopgrad.settings import Data
source = open_images(sys.argv[1], Data(shuffle_buffer=20)).train
print(len(source), len({source.read(i) for i in range(len(source))}))
"""


@pytest.mark.slow
def test_two_processes_share_one_download(served):
    write_tars(served.folder, [6] * 5)
    command = [sys.executable, "-c", SHARE, f"{served.address}/train-{{000..004}}.tar"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in running] == ["30 30\n"] * 2
    assert sorted(served.sent) == [f"train-{i:03}.tar" for i in range(5)]


# The copies themselves.


def shard(number, size=100):
    return Shard(f"/somewhere/{number}.tar", size, "1")


def put(copies, number, size=100):
    """A copy of so many bytes, with the lock on it."""
    return copies.open(shard(number), size, lambda path: path.write_bytes(bytes(size)))


def kept(copies):
    return [number for number in range(10) if copies.has(shard(number))]


def test_the_least_recently_used_copy_goes_first(tmp_path):
    copies = Copies(tmp_path, 350e-9)
    for number in range(3):
        put(copies, number).close()
        os.utime(copies._path(shard(number)), (number, number))
    put(copies, 0).close()
    put(copies, 3).close()
    assert kept(copies) == [0, 2, 3]


def test_a_copy_in_use_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(copies_module, "ROOM_SECONDS", 0.1)
    copies = Copies(tmp_path, 250e-9)
    held = [put(copies, number) for number in range(2)]
    with pytest.raises(OSError, match="shards in use take the rest of shard_cache_gb"):
        put(copies, 2)
    held[1].close()
    put(copies, 2).close()
    assert kept(copies) == [0, 2]
    with pytest.raises(OSError, match=r"and shard_cache_gb = 2\.5e-07"):
        put(copies, 3, 300)


def test_processes_that_hold_copies_and_need_others_do_not_wait_for_each_other(served, monkeypatch):
    """Each holds more than half of the room, reads in an order of its own, and keeps its source when it has done."""
    monkeypatch.setattr(source_module, "IDLE_SECONDS", 0.2)
    write_tars(served.folder, [2] * 24)
    size = (served.folder / "train-000.tar").stat().st_size
    address = f"{served.address}/train-{{000..023}}.tar"
    sources = [opened(address, shuffle_buffer=8, shard_cache_gb=10 * size / 1e9) for _ in range(3)]
    found = []

    def read(source, order):
        found.append([number_in(source.read(int(index))) for index in order] == order.tolist())

    orders = [np.random.default_rng(seed).permutation(48) for seed in range(3)]
    threads = [threading.Thread(target=read, args=given) for given in zip(sources, orders, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3
    assert bytes_of_copies(sources[0]._root) <= 10 * size


def test_room_is_kept_while_a_copy_is_made(tmp_path):
    copies = Copies(tmp_path, 250e-9)
    begun, go_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> None:
        begun.set()
        go_on.wait(10)
        path.write_bytes(bytes(200))

    thread = threading.Thread(target=lambda: copies.open(shard(0), 200, slowly).close())
    thread.start()
    begun.wait(10)
    assert not copies._make_room(100)
    go_on.set()
    thread.join()
    assert copies._make_room(100)
    assert kept(copies) == []


def test_a_copy_that_is_finished_while_room_is_counted_counts(tmp_path, monkeypatch):
    """Another process renames it after the folder was listed, and is not seen at work any more."""
    copies = Copies(tmp_path, 250e-9)
    part = tmp_path / f"{shard(0).key}.200.1.1.part"
    part.write_bytes(bytes(200))
    plain = Copies._is_left_over

    def finished(own, file, key):
        os.replace(part, copies._path(shard(0)))
        return plain(own, file, key)

    monkeypatch.setattr(Copies, "_is_left_over", finished)
    assert copies._make_room(100)
    assert kept(copies) == []


def test_what_a_killed_process_left_takes_no_room(tmp_path):
    copies = Copies(tmp_path, 250e-9)
    (tmp_path / f"{shard(1).key}.200.1.1.part").write_bytes(bytes(50))
    put(copies, 2, 200).close()
    assert not list(tmp_path.glob("*.part"))


def test_a_copy_that_fails_leaves_nothing(tmp_path):
    copies = Copies(tmp_path, 1.0)

    def fail(path):
        path.write_bytes(b"half")
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        copies.open(shard(0), 100, fail)
    assert not list(tmp_path.glob("*.part"))
    assert kept(copies) == []
