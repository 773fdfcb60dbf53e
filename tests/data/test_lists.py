"""Lists and tables of image files."""

import os

import pytest
from encoded import classes, labels, names, png, save, shades

from stopgrad.cache.store import load_images
from stopgrad.data.open import open_images
from stopgrad.data.place import check_there
from stopgrad.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["b one.png", "sub/a.png", "c,d.png"], 1):
        save(tmp_path / "set" / name, i)
    return tmp_path / "set"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_path_a_line(folder, tmp_path, end):
    outside = save(tmp_path / "outside.png", 9)
    lines = ["c,d.png", "b one.png", "", "sub/a.png", "../outside.png", str(outside)]
    (folder / "list.txt").write_bytes(end.join(lines).encode())
    check_there(folder / "list.txt")
    source = open_images(folder / "list.txt").train
    assert shades(source) == [3, 1, 2, 9, 9]
    assert names(source)[0] == str(folder / "c,d.png")
    assert labels(source) == [-1] * 5


def test_names_that_are_no_text(folder):
    (folder / os.fsdecode(b"\xff.png")).write_bytes(png(7))
    (folder / "list.txt").write_bytes(b"\xff.png\n")
    assert shades(open_images(folder / "list.txt").train) == [7]


@pytest.mark.parametrize("column", ["path", "file", "filename", "image", "Image_Path", "anything"])
@pytest.mark.parametrize("label", ["label", "class", "Target"])
def test_a_table(folder, column, label):
    first = f"{column},{label},note" if column == "anything" else f"note,{label},{column}"
    rows = [["sub/a.png", "dog", "x"], ["c,d.png", "cat", "y"], ["b one.png", "", "z"]]
    rows = [row if column == "anything" else row[::-1] for row in rows]
    text = "\n".join([first] + [",".join(f'"{cell}"' for cell in row) for row in rows])
    (folder / "list.csv").write_text("\ufeff" + text, encoding="utf-8")
    source = open_images(folder / "list.csv").train
    assert shades(source) == [2, 3, 1]
    assert classes(source) == ["dog", "cat", None]


def test_splits(folder):
    rows = ["path\tclass\tsplit", "sub/a.png\tdog\ttrain", "c,d.png\tcat\tTest", "b one.png\tcat\ttrain"]
    (folder / "list.tsv").write_text("\n".join(rows))
    splits = open_images(folder / "list.tsv")
    assert shades(splits.train) == [2, 1]
    assert classes(splits.train) == ["dog", "cat"]
    assert shades(splits.test) == [3]
    assert classes(splits.test) == ["cat"]


def test_numbers_as_labels_are_in_their_order(folder):
    (folder / "list.csv").write_text("path,label\nsub/a.png,10\nb one.png,9\n")
    assert open_images(folder / "list.csv").train.class_names == ["9", "10"]


def test_missing_files_are_unreadable_images(folder):
    (folder / "list.csv").write_text('path,label\ngone.png,a\n"c,d.png",b\n,b\n')
    store = load_images(open_images(folder / "list.csv").train, shortest=8)
    assert len(store) == 1
    assert store.labels.tolist() == [1]
    assert store.skipped[str(folder / "gone.png")] == "No such file or directory"
    with pytest.raises(DataError, match=r"gone\.png cannot be read: No such file"):
        load_images(open_images(folder / "list.csv").train, shortest=8, strict=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.txt", "", "an empty list"),
        ("x.csv", "path,label\n", "an empty list"),
        (
            "x.txt",
            "gone.png\nnotes to myself\n",
            r"2 lines, the first looked for as '.*/gone.png'",
        ),
        ("x.txt", "a\0b.png\n", "names no file that exists"),
        ("x.csv", "path,split\nsub/a.png,trian\n", "the split 'trian' of 1 lines is unknown: did you mean 'train'"),
        ("x.csv", "path,split\nsub/a.png,test\n", "has no training images"),
        ("x.csv", "sub/a.png,dog\nb one.png,cat\n", "has no header"),
        ("x.csv", "path\n" + "x" * 200_000 + "\n", "cannot be read as a list of images: field larger"),
    ],
)
def test_what_is_no_list(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        open_images(folder / name)
