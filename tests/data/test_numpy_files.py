"""Arrays in NumPy's files."""

import os
import pickle
from contextlib import suppress

import numpy as np
import pytest
from encoded import classes, labels, names, shades

from stopgrad.cache.store import load_images
from stopgrad.data.kinds import numpy_files
from stopgrad.data.open import open_images
from stopgrad.data.place import check_there
from stopgrad.data.python import as_source
from stopgrad.errors import DataError


def pixels(num=5, shape=(8, 9, 3), dtype=np.uint8, first=0):
    return np.stack([np.full(shape, first + i, dtype) for i in range(num)])


def ramp(shape, dtype):
    return (np.arange(np.prod(shape)) % 200).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int16", "int64", "float16", "float32", ">f8", "bool"])
@pytest.mark.parametrize("shape", [(4, 6, 7), (4, 6, 7, 3), (4, 20, 21, 16), (4, 6, 7, 1)])
def test_any_numbers_come_as_they_are(tmp_path, dtype, shape):
    array = ramp(shape, dtype)
    np.save(tmp_path / "x.npy", array)
    check_there(tmp_path / "x.npy")
    source = open_images(tmp_path / "x.npy").train
    assert len(source) == 4
    read = source.read(2)
    np.testing.assert_array_equal(read, array[2])
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    assert read.flags["C_CONTIGUOUS"]
    assert type(read) is np.ndarray
    assert labels(source) == [-1] * 4
    assert source.name(2) == "x.npy row 2"


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((4, 3, 8, 9), (8, 9, 3)),
        ((4, 1, 8, 8), (8, 8, 1)),
        ((4, 13, 64, 64), (64, 64, 13)),
        ((4, 8, 8, 3), (8, 8, 3)),
        ((4, 16, 16, 3), (16, 16, 3)),
        ((4, 4, 4, 3), (4, 4, 3)),
    ],
)
def test_channels_first_or_last(tmp_path, shape, image):
    array = ramp(shape, np.uint8)
    np.save(tmp_path / "x.npy", array)
    read = open_images(tmp_path / "x.npy").train.read(1)
    assert read.shape == image
    np.testing.assert_array_equal(read, array[1] if image == shape[1:] else array[1].transpose(1, 2, 0))


def test_end_to_end_in_memory_mapped(tmp_path):
    np.save(tmp_path / "x.npy", pixels())
    source = open_images(tmp_path / "x.npy").train
    assert shades(source) == [0, 1, 2, 3, 4]
    assert shades(pickle.loads(pickle.dumps(source))) == [0, 1, 2, 3, 4]
    assert len(pickle.dumps(source)) < 2000
    assert load_images(source, shortest=8).stacked.shape == (5, 3, 8, 9)
    key = source.cache_key()
    np.save(tmp_path / "x.npy", pixels(first=1, num=6))
    assert open_images(tmp_path / "x.npy").train.cache_key() != key


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4), np.uint8), r"type uint8 and shape \[3, 4\], as one image has: needs"),
        (np.zeros((2, 3, 4, 5, 3), np.uint8), "needs"),
        (np.zeros((2, 30, 40, 17), np.uint8), "at most 16 channels"),
        (np.zeros((480, 640, 3), np.uint8), "as one image has"),
        (np.zeros((2, 0, 4), np.uint8), "needs"),
        (np.zeros((2, 4, 4), np.complex64), "type complex64"),
        (np.full((2, 4, 4), "x"), "needs"),
    ],
)
def test_what_is_no_array_of_images(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message):
        open_images(tmp_path / "x.npy")


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_one_image_of_its_own(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.full(shape, 7, np.uint8))
    assert shades(as_source(tmp_path / "x.npy")) == [7]
    # In a folder, each file is one.
    assert shades(open_images(tmp_path).train) == [7]
    np.save(tmp_path / "x.npy", pixels())
    assert len(as_source(tmp_path / "x.npy")) == 5


class Harmful:
    def __reduce__(self):
        return os.system, ("touch /tmp/stopgrad-was-here",)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_python_objects_are_not_unpickled(tmp_path, name):
    array = np.empty((1, 1, 1), dtype=object)
    array[0, 0, 0] = Harmful()
    save = np.save if name == "x.npy" else lambda path, array: np.savez(path, images=array)
    save(tmp_path / name, array)
    with pytest.raises(DataError, match="not unpickled"):
        open_images(tmp_path / name)
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(DataError, match="not unpickled"):
        open_images(tmp_path / "y.npy")
    assert not os.path.exists("/tmp/stopgrad-was-here")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("cut", [0, 3, 100])
def test_truncated(tmp_path, name, cut):
    np.save(tmp_path / "x.npy", pixels())
    np.savez(tmp_path / "x.npz", pixels())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:cut])
    with pytest.raises(DataError, match="cannot be read as a NumPy file"):
        open_images(tmp_path / name)


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_splits_by_name(tmp_path, names, save):
    train, test = pixels(3), pixels(2, first=10)
    arrays = (train, np.array([[7], [3], [7]]), test, np.array([[3], [5]]))
    save(tmp_path / "x.npz", **dict(zip(names, arrays, strict=True)), val_images=pixels(1), val_labels=[0])
    splits = open_images(tmp_path / "x.npz")
    assert shades(splits.train) == [0, 1, 2]
    assert classes(splits.train) == ["7", "3", "7"]
    assert shades(splits.test) == [10, 11]
    assert classes(splits.test) == ["3", None]
    assert splits.train.cache_key() != splits.test.cache_key()
    assert splits.test.name(1) == f"x.npz, {names[2]!r} row 1"


def test_validation_images_where_there_are_no_test_images(tmp_path):
    np.savez(tmp_path / "x.npz", train_images=pixels(3), val_images=pixels(1, first=9))
    assert shades(open_images(tmp_path / "x.npz").test) == [9]


@pytest.mark.parametrize("images", ["images", "x", "data", "whatever"])
@pytest.mark.parametrize("given", ["labels", "y"])
def test_one_set(tmp_path, images, given):
    np.savez(tmp_path / "x.npz", **{images: pixels(3), given: np.array(["dog", "cat", ""])}, note=np.zeros(2))
    splits = open_images(tmp_path / "x.npz")
    assert shades(splits.train) == [0, 1, 2]
    assert classes(splits.train) == ["dog", "cat", None]
    assert splits.test is None


def test_names_of_classes(tmp_path):
    np.savez(tmp_path / "x.npz", images=pixels(3), labels=[1, 0, -1], class_names=["ant", "bee"])
    assert classes(open_images(tmp_path / "x.npz").train) == ["bee", "ant", None]
    np.savez(tmp_path / "x.npz", images=pixels(3), labels=[1, 0, 2], class_names=["ant", "bee"])
    with pytest.raises(DataError, match="2 is beyond the 2 names"):
        open_images(tmp_path / "x.npz")


@pytest.mark.parametrize("given", [np.eye(3), np.array([0.5, 1.0, 2.0]), np.array([4, 4, 4])])
def test_what_is_no_label(tmp_path, given):
    np.savez(tmp_path / "x.npz", images=pixels(3), labels=given)
    source = open_images(tmp_path / "x.npz").train
    assert labels(source) == [-1, -1, -1]
    assert not source.class_names


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "it has no arrays"),
        ({"labels": np.zeros(3)}, r"holds no images: needs .* it has 'labels': float64 \[3\]"),
        ({"a": pixels(), "b": pixels()}, "none of its arrays is named as training images"),
        ({"images": pixels(3), "labels": np.zeros(4, int)}, "4 labels in 'labels' for 3 images in 'images'"),
        ({"images": np.zeros((2, 3, 4, 5, 6))}, r"'images' is of type float64 and shape \[2, 3, 4, 5, 6\]"),
    ],
)
def test_what_is_no_set_of_images(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_images(tmp_path / "x.npz")


def test_more_than_the_memory(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", images=pixels())
    monkeypatch.setattr(numpy_files, "_memory_bytes", lambda: 100.0)
    with pytest.raises(DataError, match=r"save it as \.npy"):
        open_images(tmp_path / "x.npz")


def test_damaged_inside(tmp_path):
    np.savez(tmp_path / "x.npz", images=pixels(3, (200, 200, 3)))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[data.index(bytes([2] * 200))] = 99
    (tmp_path / "x.npz").write_bytes(data)
    source = open_images(tmp_path / "x.npz").train
    with pytest.raises(OSError, match="damaged"):
        source.read(0)
    assert names(source)[0] == "x.npz, 'images' row 0"


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_damaged_anywhere(tmp_path, name, rng):
    """Whatever the libraries raise is either what the user is told, or an unreadable image."""
    np.save(tmp_path / "x.npy", pixels())
    np.savez_compressed(tmp_path / "x.npz", images=pixels(), labels=np.arange(5))
    whole = (tmp_path / name).read_bytes()
    for _ in range(200):
        data = bytearray(whole)
        data[int(rng.integers(len(data) if name == "x.npz" else 128))] = int(rng.integers(256))
        (tmp_path / name).write_bytes(data)
        with suppress(DataError, OSError):
            source = open_images(tmp_path / name).train
            for index in range(min(len(source), 5)):
                source.read(index)
