"""Data sets of the Hugging Face library `datasets`: saved on disk, and as an object."""

from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.data.place import check_name
from stopgrad.data.shared.labels import LABEL_NAMES, number_labels, renumber
from stopgrad.data.shared.layout import TEST_NAMES, TRAIN_NAMES
from stopgrad.data.shared.pixels import as_image
from stopgrad.data.sources import LabelledSource, Splits, files_key
from stopgrad.errors import DataError


class HuggingFaceSource(LabelledSource):
    """The rows of a `datasets.Dataset`; encoded images are read as they are stored, without decoding them."""

    def __init__(self, dataset: Any, name: str) -> None:
        from datasets import Image

        image = _image_column(dataset, name)
        super().__init__(*_labels(dataset, image))
        self._column, self._name = image, name
        plain = dataset.with_format(None).select_columns([image])
        self._rows = plain.cast_column(image, Image(decode=False)) if _is_image(dataset, image) else plain
        files = [entry["filename"] for entry in dataset.cache_files]
        # Its own digest of where it comes from and what was done to it.
        self._key = f"{files_key(files)} {dataset._fingerprint} {image}" if files else None

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Any:
        """The encoded image.

        Raises:
            OSError: its file is gone, or the data set is damaged.
        """
        try:
            value = self._rows[index][self._column]
        # What is memory-mapped may be damaged anywhere.
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        if isinstance(value, dict):
            return value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
        return b"" if value is None else as_image(np.asarray(value) if isinstance(value, list) else value)

    def name(self, index: int) -> str:
        """The data set and the row."""
        return f"{self._name} row {index}"

    def cache_key(self) -> str | None:
        """Files and fingerprint of the data set; None where it is in memory."""
        return self._key


def open_saved(text: str) -> Splits:
    """`hf:FOLDER`: what `save_to_disk` wrote, one split or several.

    Raises:
        ConfigError: datasets is not installed.
        DataError: nothing of the kind there, or no images in it.
    """
    _, folder = check_name(text)
    from datasets import load_from_disk

    try:
        found = load_from_disk(folder)
    # Whatever the library raises on what is none of its folders.
    except Exception as error:
        raise DataError(f"{text!r} cannot be read: {error}. It is to be a folder that save_to_disk wrote.") from error
    return splits_of(found, text)


def splits_of(found: Any, name: str) -> Splits:
    """The splits of a `Dataset` or a `DatasetDict`.

    Raises:
        DataError: no training images.
    """
    if not isinstance(found, dict):
        return Splits(name, HuggingFaceSource(found, name))
    train = next((split for split in TRAIN_NAMES if split in found), None)
    if train is None:
        if len(found) != 1:
            raise DataError(f"{name} has no split 'train': {', '.join(found)}. Choose one in Python and give it.")
        train = next(iter(found))
    source = HuggingFaceSource(found[train], f"{name} {train}")
    test = next((split for split in TEST_NAMES if split in found), None)
    if test is None or test == train:
        return Splits(name, source)
    other = HuggingFaceSource(found[test], f"{name} {test}")
    other.labels = renumber(np.asarray(other.labels), other.class_names, source.class_names)
    other.class_names = source.class_names
    return Splits(name, source, other)


def _is_image(dataset: Any, column: str) -> bool:
    return type(dataset.features[column]).__name__ == "Image"


def _image_column(dataset: Any, name: str) -> str:
    kinds = {column: type(feature).__name__ for column, feature in dataset.features.items()}
    for wanted in ("Image", "Array3D", "Array2D"):
        if found := [column for column, kind in kinds.items() if kind == wanted]:
            return found[0]
    raise DataError(
        f"{name} has no column of images: {kinds}. Cast one: dataset.cast_column('image', datasets.Image())."
    )


def _labels(dataset: Any, image: str) -> tuple[np.ndarray, list[str]]:
    kinds = {column: type(feature).__name__ for column, feature in dataset.features.items()}
    column = next((c for c, kind in kinds.items() if kind == "ClassLabel"), None)
    column = column or next((c for c in LABEL_NAMES if c in kinds and c != image), None)
    if column is None:
        return np.empty(0, dtype=np.int64), []
    values = dataset.with_format(None)[column][:]
    names = dataset.features[column].names if kinds[column] == "ClassLabel" else ()
    return number_labels([-1 if v is None and names else v for v in values], names)
