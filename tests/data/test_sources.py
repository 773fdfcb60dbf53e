import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stopgrad.data.decode import decode
from stopgrad.data.open import open_images
from stopgrad.data.sources import Subset
from stopgrad.errors import DataError


def save(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def shade(source, index):
    return int(decode(source.read(index))[0, 0, 0])


def names(source):
    return [source.name(i) for i in range(len(source))]


def labels(source):
    return [source.label(i) for i in range(len(source))]


def test_nested_by_class(tmp_path):
    save(tmp_path / "dog" / "b.png", 2)
    save(tmp_path / "cat" / "deep" / "er" / "a.JPG", 1)
    splits = open_images(tmp_path)
    assert list(splits.train.class_names) == ["cat", "dog"]
    assert labels(splits.train) == [0, 1]
    assert shade(splits.train, 1) == 2
    assert splits.test is None


def test_flat_and_unlabelled(tmp_path):
    for i, name in enumerate(["b.png", "a.jpeg", "c.webp"]):
        save(tmp_path / name, i)
    source = open_images(tmp_path).train
    assert [n.rsplit("/")[-1] for n in names(source)] == ["a.jpeg", "b.png", "c.webp"]
    assert list(source.class_names) == []
    assert labels(source) == [-1, -1, -1]


def test_images_beside_folders_are_no_classes(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "cat" / "b.png")
    save(tmp_path / "dog" / "c.png")
    source = open_images(tmp_path).train
    assert len(source) == 3
    assert not source.class_names


def test_one_folder_is_no_class(tmp_path):
    save(tmp_path / "all" / "a.png")
    save(tmp_path / "all" / "b.png")
    assert not open_images(tmp_path).train.class_names


@pytest.mark.parametrize("test_name", ["test", "val", "Validation"])
def test_splits_inside(tmp_path, test_name):
    for name in ("cat", "dog"):
        save(tmp_path / "Train" / name / "a.png")
    save(tmp_path / test_name / "dog" / "b.png", 7)
    save(tmp_path / test_name / "unseen" / "c.png")
    splits = open_images(tmp_path)
    assert len(splits.train) == 2
    assert labels(splits.test) == [1, -1]
    assert shade(splits.test, 0) == 7


def test_a_class_named_train_is_no_split(tmp_path):
    for name in ("bus", "car", "train"):
        save(tmp_path / name / "a.png")
    splits = open_images(tmp_path)
    assert list(splits.train.class_names) == ["bus", "car", "train"]
    assert splits.test is None


def test_other_folders_beside_the_splits_are_left_out(tmp_path):
    for name in ("train/cat", "train/dog", "test/cat", "raw"):
        save(tmp_path / name / "a.png")
    splits = open_images(tmp_path)
    assert list(splits.train.class_names) == ["cat", "dog"]
    assert len(splits.train) == 2
    assert len(splits.test) == 1


def test_hidden_and_foreign_files_are_left_out(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / ".hidden.png")
    save(tmp_path / ".cache" / "b.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert len(open_images(tmp_path).train) == 1


def test_links_are_followed_and_loops_are_not(tmp_path):
    save(tmp_path / "real" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert len(open_images(tmp_path / "data").train) == 1


@pytest.mark.parametrize(("make", "message"), [(False, "does not exist"), (True, "holds no images")])
def test_nothing_there(tmp_path, make, message):
    folder = tmp_path / "photos"
    if make:
        folder.mkdir()
    with pytest.raises(DataError, match=message):
        open_images(folder)


def test_a_single_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="single file"):
        open_images(save(tmp_path / "a.png"))


def png(value):
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path, values, labels=None, class_names=None, label_name="label", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": None if v is None else png(v), "path": f"{v}.png"} for v in values]
    table = pa.table({"image": images, **({} if labels is None else {label_name: labels})})
    if class_names is not None:
        features = {"image": {"_type": "Image"}, label_name: {"names": class_names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)
    return path


def test_parquet_file_of_several_row_groups(tmp_path):
    path = write_parquet(
        tmp_path / "x.parquet", range(10), [i % 2 for i in range(10)], ["even", "odd"], row_group_size=3
    )
    source = open_images(path).train
    assert [shade(source, i) for i in range(10)] == list(range(10))
    assert labels(source) == [0, 1] * 5
    assert list(source.class_names) == ["even", "odd"]
    assert source.name(4) == "x.parquet row 4"


def test_parquet_folder_with_splits_and_parts(tmp_path):
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 1])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", [2])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [9])
    splits = open_images(tmp_path)
    assert [shade(splits.train, i) for i in range(3)] == [0, 1, 2]
    assert shade(splits.test, 0) == 9
    assert labels(splits.train) == [-1, -1, -1]


def test_parquet_with_names_for_labels(tmp_path):
    source = open_images(
        write_parquet(tmp_path / "x.parquet", [1, 2, 3], ["dog", "cat", None], label_name="class")
    ).train
    assert list(source.class_names) == ["cat", "dog"]
    assert labels(source) == [1, 0, -1]


def test_labels_of_two_splits_are_numbered_alike(tmp_path):
    write_parquet(tmp_path / "train.parquet", [1, 2, 3], ["a", "b", "c"])
    write_parquet(tmp_path / "test.parquet", [4, 5, 6], ["c", "b", "new"])
    splits = open_images(tmp_path)
    assert list(splits.test.class_names) == ["a", "b", "c"]
    assert labels(splits.train) == [0, 1, 2]
    assert labels(splits.test) == [2, 1, -1]


def test_labels_that_are_lists_are_no_labels(tmp_path):
    write_parquet(tmp_path / "train.parquet", [1, 2], [[0, 1], [1]])
    source = open_images(tmp_path).train
    assert labels(source) == [-1, -1]
    assert not source.class_names


def test_parquet_of_plain_binary(tmp_path):
    pq.write_table(pa.table({"img": [png(5)], "note": ["x"]}), tmp_path / "x.parquet")
    assert shade(open_images(tmp_path / "x.parquet").train, 0) == 5


def test_parquet_row_without_bytes_reads_as_empty(tmp_path):
    source = open_images(write_parquet(tmp_path / "x.parquet", [1, None])).train
    assert source.read(1) == b""


def test_parquet_without_images(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no image column"):
        open_images(tmp_path / "x.parquet")


def test_parquet_that_is_none(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        open_images(tmp_path / "x.parquet")


def test_digits_have_a_fixed_split():
    splits = open_images("")
    assert (len(splits.train), len(splits.test)) == (1437, 360)
    counts = np.bincount(labels(splits.test))
    assert counts.min() >= 35
    assert decode(splits.train.read(0)).shape == (8, 8, 3)
    assert max(decode(splits.train.read(i)).max() for i in range(20)) == 255


def test_subset():
    train = open_images("").train
    part = Subset(train, [5, 2])
    assert len(part) == 2
    np.testing.assert_array_equal(part.read(0), train.read(5))
    assert part.label(1) == train.label(2)
    assert part.name(1) == train.name(2)
