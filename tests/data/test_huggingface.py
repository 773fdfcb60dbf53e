"""Data sets of the library `datasets`, as objects and saved."""

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import Array3D, ClassLabel, Dataset, DatasetDict, Features, Image, Value
from encoded import classes, labels, names, png, save, shades

from stopgrad.data.open import open_images
from stopgrad.data.place import check_there
from stopgrad.data.python import as_source, as_splits
from stopgrad.data.shared import extras
from stopgrad.errors import ConfigError, DataError

NAMES = ClassLabel(names=["ant", "bee"])


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch):
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def made(values, given=None, feature=NAMES, column="label"):
    rows = {"image": [{"bytes": png(v), "path": None} for v in values]}
    features = {"image": Image()}
    if given is not None:
        rows[column], features[column] = given, feature
    return Dataset.from_dict(rows, features=Features(features))


def test_encoded_bytes_and_names_of_classes():
    source = as_source(made([1, 2, 3], [1, 0, None]))
    assert source.read(1) == png(2)
    assert shades(source) == [1, 2, 3]
    assert classes(source) == ["bee", "ant", None]
    assert names(source)[2] == "images in memory row 2"


def test_a_transform_is_passed_over():
    dataset = made([1, 2], [0, 1]).with_transform(lambda rows: {"image": ["other"] * len(rows["image"])})
    assert shades(as_source(dataset)) == [1, 2]


def test_rows_that_were_selected():
    dataset = made([1, 2, 3, 4], [0, 1, 0, 1]).select([3, 0])
    assert shades(as_source(dataset)) == [4, 1]
    assert classes(as_source(dataset)) == ["bee", "ant"]


@pytest.mark.parametrize(("feature", "given"), [(Value("int64"), [7, 3, 7]), (Value("string"), ["b", "a", "b"])])
@pytest.mark.parametrize("column", ["label", "target"])
def test_labels_without_names(feature, given, column):
    assert labels(as_source(made([1, 2, 3], given, feature, column))) == [1, 0, 1]


def test_files(tmp_path):
    rows = {"picture": [str(save(tmp_path / f"{i}.png", i)) for i in (5, 6)]}
    dataset = Dataset.from_dict(rows).cast_column("picture", Image())
    assert shades(as_source(dataset)) == [5, 6]
    (tmp_path / "5.png").unlink()
    with pytest.raises(FileNotFoundError):
        as_source(dataset).read(0)


def test_arrays():
    pixels = np.arange(2 * 8 * 9 * 3, dtype=np.uint8).reshape(2, 8, 9, 3)
    dataset = Dataset.from_dict({"image": list(pixels)}, features=Features({"image": Array3D((8, 9, 3), "uint8")}))
    np.testing.assert_array_equal(as_source(dataset).read(1), pixels[1])


def test_splits():
    both = DatasetDict(train=made([1, 2], [0, 1]), test=made([3, 4], [1, 0], ClassLabel(names=["bee", "cat"])))
    splits = as_splits(both)
    assert shades(splits.test) == [3, 4]
    assert classes(splits.test) == [None, "bee"]
    assert as_splits(DatasetDict(everything=made([1]))).test is None
    with pytest.raises(DataError, match="no split 'train': one, two"):
        as_splits(DatasetDict(one=made([1]), two=made([2])))


@pytest.mark.parametrize("several", [False, True])
def test_saved_to_disk(tmp_path, several):
    dataset = made([1, 2, 3], [1, 0, 1])
    (DatasetDict(train=dataset, validation=made([9])) if several else dataset).save_to_disk(tmp_path / "set")
    text = f"hf:{tmp_path / 'set'}"
    check_there(text)
    splits = open_images(text)
    assert shades(splits.train) == [1, 2, 3]
    assert classes(splits.train) == ["bee", "ant", "bee"]
    assert (splits.test is not None) == several
    assert splits.train.cache_key() == open_images(text).train.cache_key() is not None


def test_what_is_none(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="has no column of images"):
        as_source(Dataset.from_dict({"label": [1, 2]}))
    with pytest.raises(DataError, match="save_to_disk"):
        open_images(f"hf:{tmp_path}")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[datasets\]'"):
        check_there(f"hf:{tmp_path}")


def test_a_damaged_row_is_an_unreadable_image(tmp_path):
    made([1, 2, 3]).save_to_disk(tmp_path / "set")
    source = open_images(f"hf:{tmp_path / 'set'}").train

    class Damaged:
        def __getitem__(self, index):
            raise pa.ArrowInvalid("buffer out of bounds")

    source._rows = Damaged()
    with pytest.raises(OSError, match="ArrowInvalid: buffer out of bounds"):
        source.read(0)
