"""The same images in any kind of data set are the same pixels."""

import csv
import zipfile

import h5py
import lmdb
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from encoded import png, save

import stopgrad
from stopgrad.cache.cache import ImageCache
from stopgrad.cache.store import load_images
from stopgrad.cli.main import run as run_command
from stopgrad.data.open import KINDS, open_images
from stopgrad.data.place import check_there

NUM = 20
CLASSES = ("ant", "bee")


def as_folder(root):
    for i in range(NUM):
        save(root / "set" / CLASSES[i % 2] / f"{i:02}.png", 10 * i)
    return root / "set"


def as_zip(root):
    with zipfile.ZipFile(root / "x.zip", "w") as archive:
        for i in range(NUM):
            archive.writestr(f"set/{CLASSES[i % 2]}/{i:02}.png", png(10 * i))
    return root / "x.zip"


def sorted_by_class():
    return [*range(0, NUM, 2), *range(1, NUM, 2)]


def pixels():
    return np.stack([np.full((8, 8, 3), 10 * i, np.uint8) for i in sorted_by_class()])


def given():
    return [i % 2 for i in sorted_by_class()]


def as_npy(root):
    np.save(root / "x.npy", pixels())
    return root / "x.npy"


def as_npz(root):
    np.savez_compressed(root / "x.npz", images=pixels().transpose(0, 3, 1, 2), labels=given(), class_names=CLASSES)
    return root / "x.npz"


def as_hdf5(root):
    with h5py.File(root / "x.h5", "w") as file:
        file["x"], file["y"] = pixels(), [CLASSES[label].encode() for label in given()]
    return root / "x.h5"


def as_lmdb(root):
    environment = lmdb.open(str(root / "x.lmdb"), map_size=2**24)
    with environment.begin(write=True) as transaction:
        for row, i in enumerate(sorted_by_class()):
            transaction.put(b"image-%09d" % row, png(10 * i))
            transaction.put(b"label-%09d" % row, CLASSES[i % 2].encode())
    environment.close()
    return root / "x.lmdb"


def as_table(root):
    as_folder(root)
    with (root / "x.csv").open("w") as file:
        rows = [(f"set/{CLASSES[i % 2]}/{i:02}.png", CLASSES[i % 2]) for i in sorted_by_class()]
        csv.writer(file).writerows([("path", "label"), *rows])
    return root / "x.csv"


def as_pattern(root):
    return as_folder(root).parent / "s*"


def as_saved(root):
    rows = {"image": [{"bytes": png(10 * i), "path": None} for i in sorted_by_class()], "label": given()}
    features = Features({"image": Image(), "label": ClassLabel(names=list(CLASSES))})
    Dataset.from_dict(rows, features=features).save_to_disk(root / "hf")
    return f"hf:{root / 'hf'}"


ALL = (as_folder, as_zip, as_npy, as_npz, as_hdf5, as_lmdb, as_table, as_pattern, as_saved)


@pytest.mark.parametrize("make", ALL)
def test_the_same_pixels_labels_and_cache(tmp_path, make):
    place = make(tmp_path)
    check_there(place)
    source = open_images(place).train
    store = load_images(source, shortest=8)
    expected = load_images(open_images(as_folder(tmp_path / "plain")).train, shortest=8)
    assert torch.equal(store.stacked, expected.stacked)
    if make is not as_npy:
        assert store.labels.tolist() == expected.labels.tolist()
    cache = ImageCache(str(tmp_path / "cache"), 1, say=print, warn=pytest.fail)
    for _ in range(2):
        cached = load_images(open_images(place).train, shortest=8, cache=cache)
        assert torch.equal(cached.stacked, expected.stacked)
        assert cached.entry is not None
    assert len(list((tmp_path / "cache").glob("*/meta.json"))) == 1


@pytest.mark.parametrize("make", [as_zip, as_npz, as_hdf5, as_lmdb])
def test_from_the_command_line(tmp_path, make, tiny):
    place = str(make(tmp_path))
    given = ["--backbone", "resnet10_16", "--image-size", "8", "--batch-size", "8", "--no-baselines", "--no-report"]
    out = str(tmp_path / "run")
    assert run_command(["pretrain", place, "--out", out, "--recipe", "digits", "--steps", "1", *given]) == 0
    stopgrad.embed_to_file(out, None, tmp_path / "e.parquet")
    assert len(stopgrad.read_embeddings(tmp_path / "e.parquet")) == NUM


def test_each_kind_has_its_own_suffixes(tmp_path):
    """No file is of two kinds, but those that are told by more than a name."""
    for name in ("x.zip", "x.npy", "x.npz", "x.h5", "x.hdf5", "x.lmdb", "x.txt", "x.csv", "x.tsv", "x.parquet"):
        (tmp_path / name).write_bytes(b"")
        assert sum(kind.fits(tmp_path / name) for kind in KINDS) == 1, name
