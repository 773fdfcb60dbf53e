"""Folders of image files, nested by class or flat."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stopgrad.data.shared.layout import Labelled, divide
from stopgrad.data.shared.listing import list_images
from stopgrad.data.sources import LabelledSource, Splits, files_key


class FileSource(LabelledSource):
    """Image files."""

    def __init__(
        self, paths: Sequence[str | Path], labels: Sequence[int] | np.ndarray = (), class_names: Sequence[str] = ()
    ) -> None:
        super().__init__(labels, class_names)
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        try:
            return Path(self.paths[index]).read_bytes()
        except ValueError as error:  # a name that no file can have
            raise OSError(str(error)) from error

    def name(self, index: int) -> str:
        """The path."""
        return str(self.paths[index])

    def cache_key(self) -> str:
        """Paths, sizes and times of the files."""
        return files_key(self.paths)


def open_folder(root: Path) -> Splits:
    """Images below a folder, nested by class or flat, with `train/` and `test/` inside or not."""
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    inside = {name.lower(): str(root / name) for name in folders}
    train, test = divide(str(root), inside, list_images)
    return Splits(root.name or str(root), _source(train), None if test is None else _source(test))


def _source(found: Labelled) -> FileSource:
    return FileSource(found.files, found.labels, found.class_names)
