"""The images that a page names, to be found by text, picked, and saved as a list that commands take."""

import base64
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_SPLITS = {"training": "train", "held-out": "train", "train": "train", "test": "test"}


class Listed:
    """Images by number: points of the map first, in their order, then whatever else the page shows."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = class_names
        self._numbers: dict[tuple[str, str], int] = {}
        self._labels: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, name: str, label: int, part: str | None) -> int:
        """The number of an image, a new one where it has none yet.

        Args:
            name: what its source calls it: its path, where it is a file.
            label: index into the classes, or -1.
            part: what it is of: training, held-out or test, train, or nothing.
        """
        key = (_SPLITS.get(part or "", ""), name)
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._labels.append(label)
        return self._numbers[key]

    def as_data(self, encoder: str) -> dict[str, Any]:
        """What templates/images.js needs.

        Args:
            encoder: a run or an encoder as commands take it, for the command that reads the list; may be empty.
        """
        names = [name for _, name in self._numbers]
        # A list names files; rows of a table and members of an archive are none.
        are_files = bool(names) and os.path.isfile(names[0])
        parts = [os.path.split(os.path.abspath(name)) for name in names] if are_files else [("", n) for n in names]
        folders = {folder: number for number, folder in enumerate(dict.fromkeys(folder for folder, _ in parts))}
        root = os.path.commonpath(folders) if are_files else ""
        splits = ["", "train", "test"]
        return {
            "root": root, "folders": [os.path.relpath(f, root) if are_files else "" for f in folders],
            "folder": [folders[folder] for folder, _ in parts], "files": [file for _, file in parts],
            "splits": splits, "split": [splits.index(split) for split, _ in self._numbers],
            "classes": list(self.class_names), "label": self._labels, "areFiles": are_files, "separator": os.sep,
            "encoder": shlex.quote(encoder) if encoder else "",
        }  # fmt: skip

    def for_page(self, encoder: str) -> dict[str, Any]:
        """The values that pages of these images need; without any, nothing is to be found or picked."""
        from stopgrad.report.parts.pictures import as_script

        data = self.as_data(encoder) if len(self) else None
        return {"listed": data, "images_script": None if data is None else as_script(packed(data))}


def packed(value: Any) -> Any:
    """The same for templates/images.js to unpack, with lists of whole numbers from -1 on as base64: a third of JSON.

    Each number is stored plus one, in one, two or four bytes, the lowest first.
    """
    if isinstance(value, Mapping):
        return {key: packed(item) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    if not value or not _are_counts(value):
        return [packed(item) for item in value]
    numbers = np.asarray(value, dtype=np.int64) + 1
    size = next(size for size in (1, 2, 4) if numbers.max() < 256**size)
    return {"bytes": size, "packed": base64.b64encode(numbers.astype(f"<u{size}").tobytes()).decode()}


def _are_counts(values: Iterable[Any]) -> bool:
    return all(type(value) is int and -1 <= value < 2**32 - 1 for value in values)
