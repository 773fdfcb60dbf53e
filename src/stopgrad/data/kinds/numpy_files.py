"""NumPy's files: one array (.npy), mapped into memory, or several (.npz). Nothing is unpickled."""

import os
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.data.shared.handles import PerProcess
from stopgrad.data.shared.tables import Column, TableSource, channels_are_first, looks_like_one, open_table
from stopgrad.data.sources import Splits, files_key
from stopgrad.errors import DataError

_PICKLED = "it is no array, or one of Python objects, which are not unpickled: save numbers"


def open_npy(path: Path) -> Splits:
    """The rows of an array, without labels.

    Raises:
        DataError: no whole array, or one that holds no images.
    """
    key = files_key([path])
    try:
        array = _mapped(path)
    # Damaged headers raise almost anything: ValueError, TokenError, ...
    except Exception as error:
        raise _unreadable(path, error) from error
    first = channels_are_first(array.shape, array.dtype, str(path))
    rows = _Rows(PerProcess(partial(_mapped, path)))
    return Splits(path.name, TableSource(
        len(array), rows, where=path.name, key=key, channels_first=first, labels=np.empty(0, dtype=np.int64),
        class_names=(),
    ))  # fmt: skip


def is_one(path: Path) -> bool:
    """Whether a .npy holds one image, by its shape: `[height, width]`, or `[height, width, channel]` of up to 16."""
    try:
        return looks_like_one(_mapped(path).shape)
    except Exception:
        # What is wrong with it is said when it is opened.
        return False


def open_npz(path: Path) -> Splits:
    """Arrays of images and labels, and of splits where their names say so (`open_table`).

    An array of images is read into memory when its first image is.

    Raises:
        DataError: no whole file, no images in it, or more of them than the memory holds.
    """
    key = files_key([path])
    try:
        columns = _columns(path)
    # Damaged files raise almost anything: zlib.error, TokenError, ...
    except Exception as error:
        raise _unreadable(path, error) from error

    def open_source(name: str, labels: np.ndarray, class_names: Sequence[str]) -> TableSource:
        column = columns[name]
        where = f"{path.name}, {name!r}"
        first = channels_are_first(column.shape, column.dtype, where)
        size = column.dtype.itemsize * int(np.prod(column.shape, dtype=object))
        if size > (most := _memory_bytes()):
            raise DataError(
                f"{where} takes {size / 1e9:.3g} GB, and the memory is {most / 1e9:.3g}: save it as .npy, which is "
                "read a row at a time.",
                topic="out-of-memory",
            )
        rows = _Rows(PerProcess(partial(_loaded, path, name)))
        return TableSource(column.shape[0], rows, where=where, key=f"{key} {name}", channels_first=first, labels=labels,
                           class_names=class_names)  # fmt: skip

    return open_table(columns, path.name, str(path), open_source)


class _Rows:
    """The rows of an array that each process opens for itself."""

    def __init__(self, opened: PerProcess[np.ndarray]) -> None:
        self._opened = opened

    def __call__(self, index: int) -> np.ndarray:
        return self._opened()[index]


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _loaded(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file[name]
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"damaged ({error})") from error


def _columns(path: Path) -> dict[str, Column]:
    """The arrays by their headers; what is no array, or holds Python objects, is left out."""
    columns = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if not member.endswith(".npy"):
                continue
            name = member.removesuffix(".npy")
            with archive.open(member) as file:
                shape, dtype = _header(file)
            if not dtype.hasobject:
                columns[name] = Column(shape, dtype, partial(_values, path, name))
            elif len(shape) >= 3:
                raise ValueError(f"{name!r} holds Python objects")
    return columns


def _values(path: Path, name: str) -> np.ndarray:
    try:
        return _loaded(path, name)
    except OSError as error:
        raise _unreadable(path, error) from error


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _memory_bytes() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _unreadable(path: Path, error: Exception) -> DataError:
    why = (
        _PICKLED
        if any(words in str(error) for words in ("allow_pickle", "Object arrays", "Python objects"))
        else str(error)
    )
    return DataError(f"{str(path)!r} cannot be read as a NumPy file: {why}.")
