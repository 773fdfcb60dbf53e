"""Checks of a data set's path before it is opened; without numpy or torch, so that a wrong path is reported at once."""

from pathlib import Path

from stopgrad.data.shards.place import check_shards, names_shards
from stopgrad.errors import DataError

IN_MEMORY = "images in memory"
"""What a data set is called that came as an `ImageSource`."""


def check_there(path: str | Path) -> None:
    """Raise `DataError` where a data set cannot be, before it is opened; `ConfigError` for an address of no use."""
    if names_shards(path):
        check_shards(str(path))
        return
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError(f"{str(path)!r} does not exist: give a folder of images or a parquet file.")
    if root.is_file() and root.suffix != ".parquet":
        raise DataError(f"{str(path)!r} is a single file: give a folder of images or a parquet file.")
