"""Rows of embeddings written as parquet, NumPy array or CSV, block by block.

Parquet has the columns path, split, label, class_name and embedding. The last is a plain list<float>: Arrow's list of
fixed size is the same in the file but for a hint to Arrow, and readers have failed on it (ClickHouse issue 68209,
pg_parquet issue 116), while pandas, DuckDB, polars and Hugging Face datasets, and with them the viewers built on these,
read the plain one. Its length is in the metadata.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from stopgrad.artifacts.files import write_atomically
from stopgrad.embeddings.paths import meta_file, names_file

FORMAT = "stopgrad-embeddings-1"
META_KEY = b"stopgrad"
NAME_COLUMNS = ("path", "split", "label", "class_name")
BLOCK_FLOATS = 2**22


@dataclass(frozen=True)
class Rows:
    """What is written: vectors, and what belongs to each."""

    vectors: np.ndarray
    """float32 `[row dim]`; may be mapped from disk."""
    about: Callable[[int], tuple[str, str | None, int | None, str | None]]
    """Row -> path, split, label and class name; None where there is none."""
    normalise: bool
    metadata: Mapping[str, Any]

    def blocks(self) -> Iterator[tuple[np.ndarray, list[list[Any]]]]:
        """Vectors and, column by column, what belongs to them, so many rows at a time as fit a small memory."""
        num = max(1024, BLOCK_FLOATS // self.vectors.shape[1])
        for start in range(0, len(self.vectors), num):
            vectors = np.array(self.vectors[start : start + num])
            if self.normalise:
                vectors = F.normalize(torch.from_numpy(vectors), dim=1).numpy()
            about = [self.about(row) for row in range(start, start + len(vectors))]
            yield vectors, [list(column) for column in zip(*about, strict=True)]


def write_rows(out: Path, rows: Rows) -> None:
    """Write a file and what lies beside it, each atomically.

    Without its metadata a file is no file of embeddings: that of an earlier file goes first and the new one comes last,
    so that whatever fails in between, vectors are never taken for those of another encoder.
    """
    if out.suffix == ".parquet":
        write_atomically(out, lambda part: _write_parquet(part, rows))
        return
    text = json.dumps(rows.metadata, indent=2) + "\n"
    meta_file(out).unlink(missing_ok=True)
    if out.suffix == ".npy":
        write_atomically(out, lambda part: _write_npy(part, rows))
        write_atomically(names_file(out), lambda part: _write_csv(part, rows, vectors_too=False))
    else:
        write_atomically(out, lambda part: _write_csv(part, rows, vectors_too=True))
    write_atomically(meta_file(out), lambda part: part.write_text(text, encoding="utf-8"))


def _write_parquet(part: Path, rows: Rows) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    embedding = pa.list_(pa.float32())
    schema = pa.schema([*_name_fields(), ("embedding", embedding)], {META_KEY: json.dumps(rows.metadata)})
    # Vectors repeat nothing: a dictionary and a compressor would only take time.
    compression = {"embedding.list.element": "none"} | dict.fromkeys(NAME_COLUMNS, "snappy")
    with pq.ParquetWriter(part, schema, use_dictionary=["split", "class_name"], compression=compression) as writer:
        for vectors, columns in rows.blocks():
            offsets = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
            lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1)))
            writer.write_table(pa.Table.from_arrays([*_name_arrays(columns), lists], schema=schema))


def _write_npy(part: Path, rows: Rows) -> None:
    with open(part, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": rows.vectors.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for vectors, _ in rows.blocks():
            vectors.astype("<f4", copy=False).tofile(file)


def _write_csv(part: Path, rows: Rows, *, vectors_too: bool) -> None:
    import pyarrow as pa
    from pyarrow import csv

    numbers = number_columns(rows.vectors.shape[1]) if vectors_too else []
    schema = pa.schema([*_name_fields(), *((name, pa.float32()) for name in numbers)])
    # It writes a float32 as the shortest text that reads back as the same.
    with csv.CSVWriter(part, schema) as writer:
        for vectors, columns in rows.blocks():
            arrays = [pa.array(vectors[:, i]) for i in range(len(numbers))]
            writer.write_table(pa.Table.from_arrays([*_name_arrays(columns), *arrays], schema=schema))


def number_columns(dim: int) -> list[str]:
    """The columns of a .csv that hold the vector."""
    return [f"embedding_{i}" for i in range(dim)]


def _name_fields() -> list[Any]:
    import pyarrow as pa

    kinds = (pa.string(), pa.string(), pa.int64(), pa.string())
    return [pa.field(name, kind) for name, kind in zip(NAME_COLUMNS, kinds, strict=True)]


def _name_arrays(columns: list[list[Any]]) -> list[Any]:
    import pyarrow as pa

    return [pa.array(column, field.type) for column, field in zip(columns, _name_fields(), strict=True)]
