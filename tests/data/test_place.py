"""What a text stands for: paths, patterns, several at once."""

import subprocess
import sys
import tarfile

import pytest
from encoded import classes, labels, names, png, save, shades

from stopgrad.data.kinds.folders import FileSource
from stopgrad.data.open import open_images
from stopgrad.data.place import check_there, expand, in_full
from stopgrad.data.sources import Splits
from stopgrad.data.splits import open_parts
from stopgrad.errors import ConfigError, DataError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for i, name in enumerate(
        ["x/2023/cat/a.png", "x/2023/dog/b.png", "x/2024/dog/c.png", "y/2024/eel/d.png", "y/2024/cat/e.png", "y/f.png"],
        1,
    ):
        save(tmp_path / name, i)
    (tmp_path / "y" / "notes.txt").write_text("not this")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_several_joined_by_the_names_of_classes(photos):
    check_there("y/2024::x/2023")
    splits = open_images("y/2024::x/2023")
    assert shades(splits.train) == [5, 4, 1, 2]
    assert classes(splits.train) == ["cat", "eel", "cat", "dog"]
    assert splits.train.class_names == ["cat", "dog", "eel"]
    assert splits.name == "y/2024::x/2023"
    key = splits.train.cache_key()
    assert key == open_images("y/2024::x/2023").train.cache_key()
    assert key != open_images("x/2023::y/2024").train.cache_key()


def test_unlabelled_ones_join_without_classes(photos):
    splits = open_images("x/2024::x/2023")
    assert classes(splits.train) == [None, "cat", "dog"]


def test_test_images_join_too(tmp_path):
    for i, name in enumerate(["a/train/cat", "a/train/dog", "a/test/dog", "b/train/cat", "b/train/eel", "b/val/eel"]):
        save(tmp_path / name / "x.png", i)
    splits = open_images(f"{tmp_path / 'a'}::{tmp_path / 'b'}")
    assert shades(splits.test) == [2, 5]
    assert classes(splits.test) == ["dog", "eel"]


def test_a_path_with_the_mark_in_its_name_is_a_path(tmp_path):
    save(tmp_path / "a::b" / "x[1]" / "y.png", 3)
    assert expand(tmp_path / "a::b") == [str(tmp_path / "a::b")]
    assert shades(open_images(tmp_path / "a::b" / "x[1]").train) == [3]


def test_a_pattern_of_folders(photos):
    check_there("*/2024")
    splits = open_images("*/2024")
    assert expand("*/2024") == ["x/2024", "y/2024"]
    assert shades(splits.train) == [3, 5, 4]


def test_a_pattern_of_any_depth_takes_each_image_once(photos):
    assert sorted(shades(open_images("**").train)) == [1, 2, 3, 4, 5, 6]
    assert sorted(shades(open_images(f"{photos}/**/cat").train)) == [1, 5]


def test_a_pattern_of_images(photos):
    assert shades(open_images("**/*.png").train) == [1, 2, 3, 5, 4, 6]
    # Folders and images: what else lies there is left out, as in a folder.
    assert expand("y/*") == ["y/2024", "y/f.png"]
    assert sorted(shades(open_images("y/*").train)) == [4, 5, 6]


def test_a_pattern_with_a_suffix_takes_data_sets(photos):
    for name in ("1", "2"):
        (photos / f"list{name}.csv").write_text("path,label\nx/2023/cat/a.png,a\nx/2023/dog/b.png,b\n")
    assert shades(open_images("list*.csv").train) == [1, 2, 1, 2]
    assert classes(open_images("list1.csv::x/2023").train) == ["a", "b", "cat", "dog"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nowhere", DataError, "'nowhere' does not exist"),
        ("x/2023::nowhere", DataError, "'nowhere' does not exist"),
        ("x/2023::", ConfigError, "nothing stands on one side of '::'"),
        ("z/*", DataError, r"'z/\*' does not exist, and as a pattern it matches no folder"),
        ("y/f.png", DataError, "'y/f.png' is a single file"),
        ("x/2023::y/notes.md", DataError, "'y/notes.md' is a single file"),
        ("torchvision:CIFAR10", ConfigError, "needs the form torchvision:NAME:FOLDER"),
        ("torchvision:CIFAR10:nowhere", DataError, "'nowhere' is no folder"),
        ("hf:nowhere", DataError, "'nowhere' is no folder"),
    ],
)
def test_what_is_not_there_is_said_before_it_is_opened(photos, text, error, message):
    (photos / "y" / "notes.md").write_text("")
    for check in (check_there, open_images):
        with pytest.raises(error, match=message):
            check(text)


def test_checking_imports_no_numpy():
    code = "import stopgrad.data.place as p, sys; p.expand('a::b*'); assert not {'numpy', 'torch'} & set(sys.modules)"
    code = code.replace("p.expand('a::b*')", "p.in_full('a::b')")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_in_full(photos):
    assert in_full("x") == str(photos / "x")
    assert in_full("x::y/*") == f"{photos / 'x'}::{photos / 'y' / '*'}"
    assert in_full("torchvision:MNIST:x") == f"torchvision:MNIST:{photos / 'x'}"
    assert in_full("hf:x") == f"hf:{photos / 'x'}"


def test_parts_are_found_from_another_folder(photos, monkeypatch):
    parts = open_parts("x/2024::y/2024")
    monkeypatch.chdir("/")
    assert open_parts(parts.path).digest() != ""
    assert names(open_parts(parts.path))[0] == str(photos / "x" / "2024" / "dog" / "c.png")
    assert shades(open_parts(photos / "y" / "f.png")) == [6]


def test_one_set_is_as_it_is(photos):
    assert isinstance(open_images("x/2023"), Splits)
    assert labels(open_images("x/2023").train) == [0, 1]
    assert open_images("x/2023").train.read(0) == png(1)


def test_an_archive_beside_a_folder(photos):
    with tarfile.open("more.tar", "w") as archive:
        archive.add("x/2023", "all")
    check_there("more.tar::y/2024")
    splits = open_images("more.tar::y/2024")
    assert shades(splits.train) == [1, 2, 5, 4]
    assert classes(splits.train) == ["cat", "dog", "cat", "eel"]
    with tarfile.open("more.tar") as archive:
        second = archive.getmembers()[-1].offset_data
    (photos / "more.tar").write_bytes((photos / "more.tar").read_bytes()[: second + 10])
    assert list(open_images("more.tar::y/2024").train.damaged) != []
    assert in_full("more.tar::y/2024") == f"{photos / 'more.tar'}::{photos / 'y' / '2024'}"


def test_many_images_of_a_pattern_are_one_source(photos):
    source = open_images("x/*/*/*.png").train
    assert isinstance(source, FileSource)
    assert names(source) == ["x/2023/cat/a.png", "x/2023/dog/b.png", "x/2024/dog/c.png"]
    assert shades(open_images("y/f.*").train) == [6]
