"""LMDB databases of encoded images."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import lmdb
import pytest
from encoded import classes, labels, names, png, shades

from stopgrad.cache.store import load_images
from stopgrad.data.open import open_images
from stopgrad.data.place import check_there
from stopgrad.data.shared import extras
from stopgrad.errors import ConfigError, DataError


def write(path, items, subdir=True):
    environment = lmdb.open(str(path), map_size=2**24, subdir=subdir)
    with environment.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key, value)
    environment.close()
    return path


@pytest.mark.parametrize("subdir", [True, False])
def test_values_in_the_order_of_their_keys(tmp_path, subdir):
    items = {b"b": png(2), b"a": png(1), b"\xff\x00": png(3), b"__len__": b"3"}
    path = write(tmp_path / "x.lmdb", items, subdir)
    check_there(path)
    source = open_images(path).train
    assert shades(source) == [1, 2, 3]
    assert names(source) == [f"{path}/a", f"{path}/b", f"{path}/\\xff\x00"]
    assert labels(source) == [-1, -1, -1]


def text_set(path, texts):
    items = {b"num-samples": str(len(texts)).encode()}
    for i, text in enumerate(texts, 1):
        items |= {b"image-%09d" % i: png(i), b"label-%09d" % i: text.encode()}
    return write(path, items)


def test_labels_beside_images(tmp_path):
    source = open_images(text_set(tmp_path / "x", ["cat", "dog", "cat", "cat", "dog"])).train
    assert shades(source) == [1, 2, 3, 4, 5]
    assert classes(source) == ["cat", "dog", "cat", "cat", "dog"]


def test_a_text_of_its_own_for_each_image_is_no_class(tmp_path):
    source = open_images(text_set(tmp_path / "x", ["one", "two", "three", "four"])).train
    assert labels(source) == [-1] * 4
    assert not source.class_names


def test_threads_processes_and_pickles(tmp_path):
    path = write(tmp_path / "x", {b"%03d" % i: png(i) for i in range(200)})
    source = open_images(path).train
    again = open_images(path).train
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, range(200))) == [png(i) for i in range(200)]
    assert again.read(3) == png(3)
    assert pickle.loads(pickle.dumps(source)).read(7) == png(7)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(source.read(i) == png(i) for i in range(200)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(load_images(source, shortest=8)) == 200
    assert not (path / "lock.mdb").exists() or os.access(path / "lock.mdb", os.W_OK)


def test_a_folder_that_may_not_be_written(tmp_path):
    path = write(tmp_path / "x", {b"a": png(1)})
    (path / "lock.mdb").unlink()
    path.chmod(0o500)
    try:
        assert shades(open_images(path).train) == [1]
        assert not (path / "lock.mdb").exists()
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("value", [pickle.dumps(("x", 1)), b"\x08\x03\x10\x20"])
def test_values_of_other_kinds(tmp_path, value):
    with pytest.raises(DataError, match="its 2 values are no encoded images"):
        open_images(write(tmp_path / "x", {b"a": value, b"b": value}))


def test_empty(tmp_path):
    with pytest.raises(DataError, match="its 0 values"):
        open_images(write(tmp_path / "x", {}))


@pytest.mark.parametrize("content", [b"", b"no database", bytes(10000)])
def test_no_database(tmp_path, content):
    (tmp_path / "x.lmdb").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as LMDB"):
        open_images(tmp_path / "x.lmdb")


def test_truncated(tmp_path):
    """To read beyond the end would end the process."""
    path = write(tmp_path / "x.lmdb", {b"%03d" % i: png(i, (64, 64)) + bytes(3000) for i in range(200)}, subdir=False)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(DataError, match="it is truncated: 100,000 of"):
        open_images(path)


def test_without_lmdb(tmp_path, monkeypatch):
    path = write(tmp_path / "x", {b"a": png(1)})
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[lmdb\]'"):
        open_images(path)


def test_damage_that_is_found_while_reading_is_an_unreadable_image(tmp_path):
    class Damaged:
        def begin(self):
            raise lmdb.CorruptedError("MDB_CORRUPTED")

    source = open_images(write(tmp_path / "x", {b"a": png(1)})).train
    source._opened = Damaged
    with pytest.raises(OSError, match="MDB_CORRUPTED"):
        source.read(0)
