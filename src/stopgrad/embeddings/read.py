"""Files of embeddings, read back."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stopgrad.embeddings.formats import FORMAT, META_KEY, NAME_COLUMNS, number_columns
from stopgrad.embeddings.paths import SUFFIXES, meta_file, names_file
from stopgrad.errors import DataError


@dataclass(frozen=True)
class Embeddings:
    """What `embed_to_file` wrote."""

    vectors: Float[Tensor, "row dim"]
    names: Sequence[str]
    """Path or row of each image."""
    labels: Int[Tensor, "row"]
    """Index into the classes, or -1."""
    class_names: Sequence[str]
    splits: Sequence[str | None]
    """`train`, `test` or None of each image."""
    metadata: Mapping[str, Any]
    """Encoder, preprocessing, data, skipped images."""

    def __len__(self) -> int:
        return len(self.vectors)


def read_embeddings(path: str | Path) -> Embeddings:
    """Read a file that `embed_to_file` wrote.

    Raises:
        DataError: no such file, damaged, or written by something else.
    """
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise DataError(f"{file} does not exist: give a file that stopgrad embed wrote ({', '.join(SUFFIXES)}).")
    read = {".parquet": _read_parquet, ".npy": _read_npy, ".csv": _read_csv}.get(file.suffix)
    if read is None:
        raise DataError(f"{file}: embeddings are read from {', '.join(SUFFIXES)}.")
    try:
        vectors, names, metadata = read(file)
        num_rows = metadata["num_images"]
        if not len(vectors) == names.num_rows == num_rows:
            raise ValueError(f"it is damaged, with {len(vectors)} rows, not {num_rows}")
        labels = np.array(names["label"].fill_null(-1).to_numpy(), dtype=np.int64)
        return Embeddings(
            torch.from_numpy(vectors), names["path"].to_pylist(), torch.from_numpy(labels), metadata["class_names"],
            names["split"].to_pylist(), metadata,
        )  # fmt: skip
    # Damaged files raise almost anything: ArrowException, KeyError, TokenError, ...
    except Exception as error:
        raise DataError(f"{file} is no file of embeddings that stopgrad embed wrote: {error}.") from error


def _checked(text: "str | bytes | None") -> dict[str, Any]:
    metadata = json.loads(text) if text is not None else {}
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError(f"it does not say that its format is {FORMAT!r}")
    return metadata


def _read_parquet(file: Path) -> tuple[np.ndarray, Any, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        metadata = _checked((table.schema_arrow.metadata or {}).get(META_KEY))
        vectors = np.empty((table.metadata.num_rows, metadata["dim"]), dtype=np.float32)
        names, row = [], 0
        for batch in table.iter_batches():
            block = batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, -1)
            vectors[row : row + len(block)] = block
            names.append(batch.select(NAME_COLUMNS))
            row += len(block)
    return vectors, pa.Table.from_batches(names), metadata


def _read_npy(file: Path) -> tuple[np.ndarray, Any, dict[str, Any]]:
    metadata = _checked(meta_file(file).read_text(encoding="utf-8"))
    vectors = np.load(file, allow_pickle=False)
    if vectors.shape != (metadata["num_images"], metadata["dim"]) or vectors.dtype != np.float32:
        raise ValueError(f"an array of {vectors.dtype} {vectors.shape}")
    return vectors, _read_table(names_file(file), {}), metadata


def _read_csv(file: Path) -> tuple[np.ndarray, Any, dict[str, Any]]:
    import pyarrow as pa

    metadata = _checked(meta_file(file).read_text(encoding="utf-8"))
    columns = number_columns(metadata["dim"])
    table = _read_table(file, dict.fromkeys(columns, pa.float32()))
    vectors = np.empty((table.num_rows, len(columns)), dtype=np.float32)
    for place, column in enumerate(columns):
        vectors[:, place] = table[column]
    return vectors, table.select(NAME_COLUMNS), metadata


def _read_table(file: Path, kinds: dict[str, Any]) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    kinds |= {"path": pa.string(), "split": pa.string(), "label": pa.int64(), "class_name": pa.string()}
    return csv.read_csv(
        file, parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=kinds, null_values=[""]),
    )  # fmt: skip
