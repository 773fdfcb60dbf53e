"""HDF5 files, read a row at a time."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.data.shared.extras import need
from stopgrad.data.shared.handles import PerProcess
from stopgrad.data.shared.tables import Column, TableSource, channels_are_first, open_table
from stopgrad.data.sources import Splits, files_key
from stopgrad.errors import DataError


def open_hdf5(path: Path) -> Splits:
    """Data sets of images and labels, and of splits where their names or groups say so (`open_table`).

    Images are rows of numbers, or encoded files: rows of bytes of any length. Links to other files are not followed.

    Raises:
        ConfigError: h5py is not installed.
        DataError: no HDF5 file, or no images in it.
    """
    need("h5py", "hdf5")
    key = files_key([path])
    opened = PerProcess(partial(_opened, path))
    try:
        columns = _columns(opened, path)
    # What h5py raises on damage.
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read as HDF5: {error}.") from error

    def open_source(name: str, labels: np.ndarray, class_names: Sequence[str]) -> TableSource:
        column, where = columns[name], f"{path.name}, {name!r}"
        first = not column.is_encoded and channels_are_first(column.shape, column.dtype, where)
        return TableSource(
            column.shape[0], _Rows(opened, name, column.is_encoded), where=where, key=f"{key} {name}",
            channels_first=first, labels=labels, class_names=class_names,
        )  # fmt: skip

    return open_table(columns, path.name, str(path), open_source)


class _Rows:
    """The rows of a data set."""

    def __init__(self, opened: PerProcess[Any], name: str, is_encoded: bool) -> None:
        self._opened, self._name, self._is_encoded = opened, name, is_encoded

    def __call__(self, index: int) -> Any:
        try:
            row = self._opened()[self._name][index]
        except (KeyError, ValueError, RuntimeError) as error:
            raise OSError(f"damaged ({error})") from error
        return np.asarray(row, dtype=np.uint8).tobytes() if self._is_encoded else row


def _opened(path: Path) -> Any:
    import h5py

    return h5py.File(path, "r")


def _columns(opened: PerProcess[Any], path: Path) -> dict[str, Column]:
    import h5py

    found: dict[str, Column] = {}

    def add(name: str | bytes, item: Any) -> None:
        # h5py gives names that are no UTF-8 as bytes.
        if not isinstance(name, str) or not isinstance(item, h5py.Dataset) or item.shape is None:
            return
        row = h5py.check_vlen_dtype(item.dtype)
        is_encoded = len(item.shape) == 1 and row is not None and np.dtype(row).kind in "ui" and row.itemsize == 1
        if item.external or item.is_virtual:
            raise DataError(
                f"{str(path)!r} keeps the values of {name!r} in other files, which are not read: copy it into one file "
                "(h5repack)."
            )
        found[name] = Column(tuple(item.shape), item.dtype, lambda: np.asarray(item[()]), is_encoded)

    opened().visititems(add)
    return found
