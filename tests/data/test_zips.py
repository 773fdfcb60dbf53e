"""Zip archives, read in place."""

import os
import pickle
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from encoded import classes, labels, names, png, shades

from stopgrad.cache.store import load_images
from stopgrad.data.kinds import zips
from stopgrad.data.open import open_images
from stopgrad.data.place import check_there
from stopgrad.errors import DataError


def write(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, png(data) if isinstance(data, int) else data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_nested_by_class(tmp_path, method):
    path = write(tmp_path / "x.zip", {"dog/b.png": 2, "cat/deep/a.PNG": 1, "dog/": b"", "read.me": b"no"}, method)
    check_there(path)
    splits = open_images(path)
    assert shades(splits.train) == [1, 2]
    assert classes(splits.train) == ["cat", "dog"]
    assert names(splits.train) == [f"{path}/cat/deep/a.PNG", f"{path}/dog/b.png"]
    assert splits.test is None


def test_flat_hidden_and_foreign(tmp_path):
    path = write(tmp_path / "x.zip", {"b.png": 2, "a.png": 1, "__MACOSX/._a.png": b"x", ".h/c.png": 3, "._a.png": b"x"})
    source = open_images(path).train
    assert shades(source) == [1, 2]
    assert labels(source) == [-1, -1]


def test_splits_inside_a_folder_that_holds_everything(tmp_path):
    members = {"set/train/cat/a.png": 1, "set/train/dog/b.png": 2, "set/test/dog/c.png": 3, "set/test/eel/d.png": 4}
    splits = open_images(write(tmp_path / "x.zip", members))
    assert shades(splits.train) == [1, 2]
    assert shades(splits.test) == [3, 4]
    assert classes(splits.test) == ["dog", None]
    assert splits.train.cache_key() != splits.test.cache_key()


def test_only_a_training_folder(tmp_path):
    splits = open_images(write(tmp_path / "x.zip", {"train/cat/a.png": 1, "train/dog/b.png": 2}))
    assert classes(splits.train) == ["cat", "dog"]


def test_threads_processes_and_pickles(tmp_path):
    source = open_images(write(tmp_path / "x.zip", {f"{i:03}.png": i for i in range(200)})).train
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(source.read, list(range(200)) * 5))
    assert read == [png(i) for i in range(200)] * 5
    assert pickle.loads(pickle.dumps(source)).read(7) == png(7)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(source.read(i) == png(i) for i in range(200)) else 1)
    # Both read at once: with one position in the file they would disturb each other.
    assert all(source.read(i) == png(i) for i in range(200))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "name", ["../a.png", "cat/../../a.png", "/etc/a.png", "C:/a.png", "..\\a.png", "\\\\host\\a.png"]
)
def test_names_that_lead_out_are_refused(tmp_path, name):
    path = write(tmp_path / "x.zip", {"b.png": 1, name: 2})
    with pytest.raises(DataError, match="leads out of the archive"):
        open_images(path)


def test_links_are_not_followed(tmp_path):
    path = tmp_path / "x.zip"
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(1))
        archive.writestr(link, "/etc/passwd")
    store = load_images(open_images(path).train, shortest=8)
    assert store.skipped == {f"{path}/link.png": "a link, which is not followed"}


def test_archives_inside_are_named_and_not_opened(tmp_path):
    path = write(tmp_path / "x.zip", {"a.png": 1, "more/old.zip": b"PK", "b.tar.gz": b"x"})
    store = load_images(open_images(path).train, shortest=8)
    assert len(store) == 1
    assert {n.removeprefix(f"{path}/"): r for n, r in store.skipped.items()} == {
        "more/old.zip": "an archive inside the archive, which is not opened",
        "b.tar.gz": "an archive inside the archive, which is not opened",
    }
    with pytest.raises(DataError, match="not opened"):
        load_images(open_images(path).train, shortest=8, strict=True)
    with pytest.raises(DataError, match=r"holds no images, only archives \('a.zip'\)"):
        open_images(write(tmp_path / "y.zip", {"a.zip": b"PK"}))


def test_no_images(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_images(write(tmp_path / "x.zip", {"a.txt": b"no"}))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 and no more"])
def test_no_archive(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DataError, match="is no whole zip archive"):
        open_images(tmp_path / "x.zip")


def test_a_truncated_archive(tmp_path):
    path = write(tmp_path / "x.zip", {f"{i}.png": i for i in range(9)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="is no whole zip archive"):
        open_images(path)


def test_encrypted(tmp_path):
    path = write(tmp_path / "x.zip", {"a.png": 1})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"is encrypted \('a.png'\)"):
        open_images(path)


def test_a_damaged_member_is_an_unreadable_image(tmp_path):
    path = write(tmp_path / "x.zip", {"a.png": 1, "b.png": 2}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(png(2)) + 20] ^= 0xFF
    path.write_bytes(data)
    store = load_images(open_images(path).train, shortest=8)
    assert len(store) == 1
    assert "damaged in the archive (Bad CRC" in store.skipped[f"{path}/b.png"]


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "MOST_BYTES", 10_000)
    path = write(tmp_path / "x.zip", {"a.png": 1, "bomb.png": bytes(20_000)})
    store = load_images(open_images(path).train, shortest=8)
    assert "2e-05 GB unpacked, more than" in store.skipped[f"{path}/bomb.png"]


def test_no_more_is_unpacked_than_declared(tmp_path):
    path = write(tmp_path / "x.zip", {"bomb.png": bytes(50_000_000)})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    source = open_images(path).train
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(OSError, match="damaged"):
        source.read(0)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_an_archive_that_is_replaced_while_open_is_no_crash(tmp_path):
    path = write(tmp_path / "x.zip", {"a.png": 1})
    source = open_images(path).train
    path.write_bytes(b"gone")
    with pytest.raises(OSError, match="the archive has changed"):
        source.read(0)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_anywhere(tmp_path, method, rng):
    whole = write(tmp_path / "x.zip", {"a/x.png": 1, "b/y.png": 2}, method).read_bytes()
    for _ in range(150):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        (tmp_path / "x.zip").write_bytes(data)
        with suppress(DataError):
            source = open_images(tmp_path / "x.zip").train
            for index in range(len(source)):
                with suppress(OSError):
                    source.read(index)
