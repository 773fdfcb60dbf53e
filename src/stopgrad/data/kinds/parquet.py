"""Parquet files in the Hugging Face image layout."""

import bisect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.data.shards.place import parquet_in
from stopgrad.data.shared.layout import TEST_NAMES, TRAIN_NAMES
from stopgrad.data.sources import UNLABELLED, Splits, files_key
from stopgrad.errors import DataError


class ParquetSource:
    """Parquet files in the Hugging Face image layout: a struct column with `bytes`, and perhaps a label column.

    The encoded images are held in memory.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        # Before reading: files that are replaced in between are others.
        self._key = files_key(paths)
        try:
            schema = pq.read_schema(paths[0])
            image_column, label_column = image_and_label_columns(schema)
            columns = [c for c in (image_column, label_column) if c is not None]
            tables = [pq.read_table(path, columns=columns, memory_map=True) for path in paths]
            table = pa.concat_tables(tables, promote_options="permissive")
        # Names that are no UTF-8 are a ValueError.
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{_join(paths)} cannot be read as parquet: {error}.") from error
        if image_column is None:
            raise DataError(
                f"{_join(paths)} has no image column: needs a column of structs with 'bytes', or of binary; it has "
                f"{', '.join(f'{f.name}: {f.type}' for f in schema)}."
            )
        self._key += image_column
        self._chunks: list[Any] = [
            c.field("bytes") if pa.types.is_struct(c.type) else c for c in table[image_column].chunks if len(c)
        ]
        self._starts = np.cumsum([0] + [len(c) for c in self._chunks]).tolist()
        self._stem = paths[0].name if len(paths) == 1 else f"{paths[0].parent.name}/*.parquet"
        self.class_names: Sequence[str]
        self._labels, self.class_names = _read_labels(table, schema, label_column)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int) -> bytes:
        """The encoded image; empty where the row has none."""
        chunk = bisect.bisect_right(self._starts, index) - 1
        return self._chunks[chunk][index - self._starts[chunk]].as_py() or b""

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        return int(self._labels[index]) if self._labels is not None else UNLABELLED

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """int64 `[image]`."""
        return self._labels[indices] if self._labels is not None else np.full(len(indices), UNLABELLED)

    def take_class_names(self, class_names: Sequence[str]) -> None:
        """Number the labels as another split does, by name; a class that it does not know becomes unlabelled."""
        place = {name: i for i, name in enumerate(class_names)}
        if self._labels is not None:
            number = np.array([place.get(name, UNLABELLED) for name in self.class_names] + [UNLABELLED])
            self._labels = number[self._labels]
        self.class_names = class_names

    def name(self, index: int) -> str:
        """File and row."""
        return f"{self._stem} row {index}"

    def cache_key(self) -> str:
        """Paths, sizes and times of the files, and the column."""
        return self._key


def is_parquet(path: Path) -> bool:
    """A parquet file, or a folder with some in it or in `data/`."""
    return path.suffix == ".parquet" if path.is_file() else bool(parquet_in(path))


def open_parquet(root: Path) -> Splits:
    """A parquet file, or those of a folder, each split's by their names."""
    if root.is_file():
        return Splits(root.stem, ParquetSource([root]))
    tables = parquet_in(root)
    train = [p for p in tables if p.name.lower().startswith(TRAIN_NAMES)]
    if not train:
        return Splits(root.name, ParquetSource(tables))
    train_source = ParquetSource(train)
    for name in TEST_NAMES:
        test = [p for p in tables if p.name.lower().startswith(name)]
        if test:
            test_source = ParquetSource(test)
            test_source.take_class_names(train_source.class_names)
            return Splits(root.name, train_source, test_source)
    return Splits(root.name, train_source)


def image_and_label_columns(schema: Any) -> tuple[str | None, str | None]:
    """The columns of a schema that hold images and labels; None where there is none."""
    import pyarrow as pa

    def holds_images(field: Any) -> bool:
        if pa.types.is_struct(field.type):
            return field.type.get_field_index("bytes") >= 0
        return pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)

    image = next((f.name for f in schema if holds_images(f)), None)
    class_columns = [n for n, f in features_in(schema).items() if f.get("_type") == "ClassLabel"]
    named = [n for n in ("label", "labels", "class", "fine_label", "target") if n in schema.names]
    label = next((n for n in class_columns + named if n in schema.names), None)
    return image, label


def features_in(schema: Any) -> dict[str, Any]:
    """What Hugging Face's metadata says of each column; empty without it."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: f for name, f in features.items() if isinstance(f, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _read_labels(table: Any, schema: Any, column: str | None) -> tuple[np.ndarray | None, list[str]]:
    import pyarrow as pa

    if column is None:
        return None, []
    kind = table.schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None, []
    values = table[column].to_pylist()
    names = features_in(schema).get(column, {}).get("names")
    if not isinstance(names, list) or not all(v is None or isinstance(v, int) for v in values):
        known = sorted({v for v in values if v is not None})
        place = {v: i for i, v in enumerate(known)}
        values, names = [place.get(v) for v in values], [str(v) for v in known]
    labels = np.array([UNLABELLED if v is None else v for v in values], dtype=np.int64)
    if len(names) < 2 or labels.max(initial=UNLABELLED) == UNLABELLED:
        return None, []
    if labels.max() >= len(names) or labels.min() < UNLABELLED:
        raise DataError(f"label column {column!r} goes from {labels.min()} to {labels.max()}, with {len(names)} names.")
    return labels, names


def _join(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
