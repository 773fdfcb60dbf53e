"""HDF5 files."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from encoded import classes, labels, names, png, shades

from stopgrad.cache.store import load_images
from stopgrad.data.open import open_images
from stopgrad.data.place import check_there
from stopgrad.data.shared import extras
from stopgrad.errors import ConfigError, DataError


def pixels(num, first=0):
    return np.stack([np.full((8, 9, 3), first + i, np.uint8) for i in range(num)])


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def encoded(path, values, **more):
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("images", (len(values),), dtype=h5py.vlen_dtype(np.uint8))
        for i, value in enumerate(values):
            rows[i] = np.frombuffer(png(value), np.uint8)
        for name, array in more.items():
            file[name] = array
    return path


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_splits_by_name(tmp_path, suffix):
    path = write(
        tmp_path / f"x{suffix}",
        train_set_x=pixels(3),
        train_set_y=[1, 0, 1],
        test_set_x=pixels(2, 10),
        test_set_y=[0, 9],
    )
    check_there(path)
    splits = open_images(path)
    assert shades(splits.train) == [0, 1, 2]
    assert classes(splits.train) == ["1", "0", "1"]
    assert shades(splits.test) == [10, 11]
    assert classes(splits.test) == ["0", None]


def test_splits_by_group(tmp_path):
    path = write(tmp_path / "x.h5", train__images=pixels(3), train__labels=[b"b", b"a", b"b"], val__images=pixels(1, 9))
    splits = open_images(path)
    assert classes(splits.train) == ["b", "a", "b"]
    assert shades(splits.test) == [9]
    assert names(splits.train)[1] == "x.h5, 'train/images' row 1"


def test_any_numbers(tmp_path):
    array = np.arange(2 * 13 * 20 * 30, dtype=np.float32).reshape(2, 13, 20, 30)
    source = open_images(write(tmp_path / "x.h5", cubes=array)).train
    np.testing.assert_array_equal(source.read(1), array[1].transpose(1, 2, 0))


def test_encoded_images(tmp_path):
    path = encoded(tmp_path / "x.h5", [5, 6, 7], labels=[0, 1, 1], class_names=["ant", "bee"])
    source = open_images(path).train
    assert source.read(1) == png(6)
    assert shades(source) == [5, 6, 7]
    assert classes(source) == ["ant", "bee", "bee"]


def test_threads_processes_and_pickles(tmp_path):
    source = open_images(write(tmp_path / "x.h5", images=pixels(50))).train
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(source.read, range(50)))
    np.testing.assert_array_equal(np.stack(read), pixels(50))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(7), pixels(50)[7])
    child = os.fork()
    if child == 0:
        os._exit(0 if (source.read(3) == 3).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert load_images(source, shortest=8).stacked.shape == (50, 3, 8, 9)


def test_links_to_other_files_are_not_followed(tmp_path):
    write(tmp_path / "y.h5", images=pixels(3))
    path = write(tmp_path / "x.h5", labels=[1, 2])
    with h5py.File(path, "a") as file:
        file["images"] = h5py.ExternalLink(str(tmp_path / "y.h5"), "images")
    with pytest.raises(DataError, match="holds no images"):
        open_images(path)


def test_no_images(tmp_path):
    with pytest.raises(DataError, match=r"it has 'labels': int64 \[2\]"):
        open_images(write(tmp_path / "x.h5", labels=[1, 2]))


def test_one_image_larger_than_any(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("images", (10, 10**5, 10**5), np.uint8, chunks=(1, 100, 100))
    with pytest.raises(DataError, match="more than 1 GB"):
        open_images(tmp_path / "x.h5")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n and no more"])
def test_no_file(tmp_path, content):
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        open_images(tmp_path / "x.h5")


def test_truncated(tmp_path):
    path = write(tmp_path / "x.h5", images=pixels(50))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        open_images(path)


def test_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[hdf5\]'"):
        open_images(write(tmp_path / "x.h5", images=pixels(1)))


def test_labels_of_more_sides_are_none(tmp_path):
    assert labels(open_images(write(tmp_path / "x.h5", images=pixels(2), labels=np.eye(2))).train) == [-1, -1]


def test_arrays_whose_names_are_no_text_are_passed_over(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"] = np.zeros((4, 8, 8), dtype=np.uint8)
        file[b"\xff\xfe"] = np.zeros((4, 8, 8), dtype=np.uint8)
    assert len(open_images(tmp_path / "x.h5").train) == 4
