"""Lists of image files: a path a line (.txt), or a table with a header (.csv, .tsv)."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stopgrad.data.kinds.folders import FileSource
from stopgrad.data.shared.labels import LABEL_NAMES, number_labels
from stopgrad.data.shared.layout import TEST_NAMES, TRAIN_NAMES
from stopgrad.data.shared.names import FileNames
from stopgrad.data.sources import Splits
from stopgrad.errors import DataError, did_you_mean

PATH_NAMES = ("path", "file", "filename", "file_name", "image", "image_path", "filepath", "file_path")
_SPLITS = (*TRAIN_NAMES, *TEST_NAMES)


def open_list(path: Path) -> Splits:
    """The images that a list names, relative to its own folder; of a table, labels and splits too.

    A table's columns are found by name: the path in `path`, `file`, `filename`, `image` or `image_path`, else in the
    first column; the label in `label`, `class`, `target` and the like; the split in `split`, as train, test or val.

    Raises:
        DataError: no table, no file by any of the names, or a split that is none.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            if path.suffix.lower() == ".txt":
                rows, header = [[line] for raw in file if (line := raw.strip("\r\n"))], ["path"]
            else:
                lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
                rows = [row for row in lines if any(row)]
                header = [name.strip() for name in rows.pop(0)] if rows else []
    except (OSError, csv.Error) as error:
        raise DataError(f"{str(path)!r} cannot be read as a list of images: {error}.") from error
    if not rows:
        raise DataError(f"{str(path)!r} is a single file, and an empty list of images.")
    names = [name.lower() for name in header]
    column = next((names.index(name) for name in PATH_NAMES if name in names), None)
    if column is None and os.path.exists(path.parent / header[0]):
        raise DataError(f"{str(path)!r} has no header: its first line is to name the columns, such as 'path,label'.")
    column = column or 0
    paths = [_cell(row, column) for row in rows]
    files = FileNames.in_order(str(path.parent), paths)
    if not any(os.path.isfile(file) for file in files):
        raise DataError(
            f"{str(path)!r} is a single file, and as a list of images it names no file that exists: {len(rows)} lines, "
            f"the first looked for as {files[0]!r}. Give a folder of images, or a list of their paths."
        )
    labels, class_names = np.empty(0, dtype=np.int64), list[str]()
    if (label := next((names.index(name) for name in LABEL_NAMES if name in names), None)) is not None:
        labels, class_names = number_labels([_cell(row, label) for row in rows], where=str(path))

    def source(taken: list[int]) -> FileSource:
        own = labels[taken] if len(labels) else labels
        return FileSource(FileNames.in_order(str(path.parent), [paths[row] for row in taken]), own, class_names)

    if "split" not in names:
        return Splits(path.name, FileSource(files, labels, class_names))
    splits = _rows_of_splits(path, [_cell(row, names.index("split")).strip().lower() for row in rows])
    train = next((splits[name] for name in TRAIN_NAMES if name in splits), None)
    test = next((splits[name] for name in TEST_NAMES if name in splits), None)
    if train is None:
        raise DataError(f"{str(path)!r} has no training images: none of its {len(rows)} lines has the split 'train'.")
    return Splits(path.name, source(train), None if test is None else source(test))


def _cell(row: Sequence[str], column: int) -> str:
    return row[column] if column < len(row) else ""


def _rows_of_splits(path: Path, values: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        found.setdefault(value, []).append(row)
    for value, rows in found.items():
        if value not in _SPLITS:
            raise DataError(
                f"{str(path)!r}: the split {value!r} of {len(rows)} lines is unknown: {did_you_mean(value, _SPLITS)}"
            )
    return found
