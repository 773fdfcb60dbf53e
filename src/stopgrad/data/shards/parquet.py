"""Parquet files as shards: counts and labels from the columns that hold them, images from an unpacked copy."""

from array import array
from pathlib import Path
from typing import Any

from stopgrad.data.kinds.parquet import features_in, image_and_label_columns
from stopgrad.data.shards.index import Entries

_ROWS_AT_ONCE = 64


def index_parquet(file: Any) -> Entries:
    """Count the images of a parquet file and read their labels; of the images nothing is read but their size.

    Args:
        file: a path, or a file that can be read at any place.

    Raises:
        OSError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    entries = Entries()
    try:
        with pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            column, label_column = image_and_label_columns(schema)
            if column is None:
                entries.problem = "without an image column: needs structs with 'bytes', or binary"
                return entries
            num_images = table.metadata.num_rows
            entries.unpacked_bytes = _uncompressed(table.metadata, column) + 8 * (num_images + 1)
            labels = table.read(columns=[label_column])[label_column].to_pylist() if label_column else []
    # Names that are no UTF-8 are a ValueError.
    except (ValueError, pa.ArrowException) as error:
        entries.problem = f"no whole parquet file ({error})"
        return entries
    zeros = bytes(8 * num_images)
    for values in (entries.offsets, entries.sizes, entries.name_ends):
        values.frombytes(zeros)
    entries.labels.extend([-1] * num_images)
    _take_labels(entries, labels, features_in(schema).get(label_column or "", {}).get("names"))
    return entries


def unpack(file: Any, target: Path) -> None:
    """Write the images of a parquet file one after the other, and behind them where each begins.

    Parquet compresses images in pages, of which none can be read alone; of the copy each can.

    Raises:
        OSError: it cannot be read, or the copy not be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    starts = array("q", [0])
    try:
        with pq.ParquetFile(file) as table, open(target, "wb") as out:
            column, _ = image_and_label_columns(table.schema_arrow)
            assert column is not None
            kind = table.schema_arrow.field(column).type
            wanted = f"{column}.bytes" if pa.types.is_struct(kind) else column
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[wanted]):
                values = batch.column(0)
                for value in values.field("bytes") if pa.types.is_struct(values.type) else values:
                    content = value.as_buffer()
                    size = 0 if content is None else content.size
                    if size:
                        out.write(content)
                    starts.append(starts[-1] + size)
            out.write(starts.tobytes())
    except (ValueError, pa.ArrowException) as error:
        raise OSError(f"damaged: {error}") from error


def _uncompressed(metadata: Any, column: str) -> int:
    total = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            chunk = row_group.column(number)
            if chunk.path_in_schema.split(".")[0] == column:
                total += chunk.total_uncompressed_size
    return total


def _take_labels(entries: Entries, values: list[Any], names: Any) -> None:
    if not all(isinstance(value, (int, str, type(None))) for value in values):
        return
    if isinstance(names, list) and all(v is None or (isinstance(v, int) and v < len(names)) for v in values):
        entries.is_named = True
        entries.classes = {str(name): number for number, name in enumerate(names)}
        texts = [None if v is None or v < 0 else str(names[v]) for v in values]
    else:
        texts = [None if v is None or v == -1 else str(v) for v in values]
    for row, text in enumerate(texts):
        if text is not None:
            entries.labels[row] = entries.classes.setdefault(text, len(entries.classes))
