"""LMDB databases of encoded images."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from stopgrad.data.shared.extras import need
from stopgrad.data.shared.handles import PerProcess
from stopgrad.data.shared.labels import number_labels
from stopgrad.data.shared.names import Packed
from stopgrad.data.sources import LabelledSource, Splits, files_key
from stopgrad.errors import DataError

DATA_FILE = "data.mdb"
# How encoded images begin: JPEG, PNG, GIF, BMP, TIFF, WebP, NumPy's.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"\x93NUMPY")
_IMAGE, _LABEL = b"image-", b"label-"
_TRIED = 16


class LmdbSource(LabelledSource):
    """The values of an LMDB database, in the order of their keys."""

    def __init__(self, path: Path, opened: PerProcess[Any], keys: Packed, key: str) -> None:
        super().__init__()
        self._path, self._opened, self._keys, self._key = path, opened, keys, key

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            OSError: it is no longer there, or the database is damaged.
        """
        import lmdb

        try:
            with self._opened().begin() as transaction:
                value = transaction.get(self._keys[index])
        except lmdb.Error as error:
            raise OSError(str(error)) from error
        if value is None:
            raise OSError("no longer in the database")
        return bytes(value)

    def name(self, index: int) -> str:
        """The database's path and the key."""
        return f"{self._path}/{self._keys[index].decode('utf-8', 'backslashreplace')}"

    def cache_key(self) -> str:
        """Path, size and time of the database."""
        return self._key


def is_lmdb(path: Path) -> bool:
    """A file named .lmdb or .mdb, or a folder with `data.mdb` in it."""
    return (path / DATA_FILE).is_file() if path.is_dir() else path.suffix in (".lmdb", ".mdb")


def open_lmdb(path: Path) -> Splits:
    """Encoded images, without splits.

    Where keys begin with `image-` and `label-`, as the data sets of text recognition have them, the texts of the latter
    are labels, if there are at most half as many as images. Else each value is an image, without labels.

    Raises:
        ConfigError: lmdb is not installed.
        DataError: no LMDB database, or its values are no encoded images.
    """
    need("lmdb", "lmdb")
    import lmdb

    key = files_key([path / DATA_FILE if path.is_dir() else path])
    opened = PerProcess(partial(_environment, path))
    try:
        keys, texts = _keys_and_texts(opened)
        source = LmdbSource(path, opened, keys, key)
        first = [source.read(index) for index in range(min(_TRIED, len(keys)))]
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read as LMDB: {error}.") from error
    if not any(value.startswith(_MAGIC) for value in first):
        begins = f"; the first begins with {first[0][:8]!r}" if first else ""
        raise DataError(
            f"{str(path)!r}: its {len(keys)} values are no encoded images, such as JPEG or PNG{begins}. Pickled values "
            "and Caffe's are not read: write the encoded files."
        )
    if texts is not None:
        source.labels, source.class_names = number_labels(texts)
        # Each image its own text: no classes, but something to be read.
        if len(source.class_names) * 2 > len(keys):
            source.labels, source.class_names = np.empty(0, dtype=np.int64), []
    return Splits(path.name, source)


def _keys_and_texts(opened: PerProcess[Any]) -> tuple[Packed, list[str] | None]:
    """The keys of the images, and the texts beside them."""
    with opened().begin() as transaction:
        keys = Packed.of(_from(transaction, _IMAGE))
        if not keys:
            # Those of Python's own kind, such as __len__, tell of the others.
            return Packed.of(key for key in _from(transaction, b"") if not key.startswith(b"__")), None
        texts = [transaction.get(_LABEL + key[len(_IMAGE) :]) for key in keys]
    return keys, [(text or b"").decode("utf-8", "backslashreplace") for text in texts] if any(texts) else None


def _from(transaction: Any, prefix: bytes) -> Iterator[bytes]:
    """The keys that begin so, sorted."""
    cursor = transaction.cursor()
    if cursor.set_range(prefix):
        for key in cursor.iternext(values=False):
            if not key.startswith(prefix):
                return
            yield key


# A process may open a database once only, and a forked one goes on with what it inherits: nothing is locked.
_environments: WeakValueDictionary[str, Any] = WeakValueDictionary()
_lock = threading.Lock()


def _environment(path: Path) -> Any:
    import lmdb

    real = os.path.realpath(path)
    with _lock:
        found = _environments.get(real)
        if found is None:
            found = lmdb.open(real, subdir=path.is_dir(), readonly=True, create=False, lock=False, readahead=False)
            size = os.path.getsize(os.path.join(real, DATA_FILE) if path.is_dir() else real)
            needed = (found.info()["last_pgno"] + 1) * found.stat()["psize"]
            # Reading beyond the end of the file would end the process.
            if size < needed:
                found.close()
                raise OSError(f"it is truncated: {size:,} of {needed:,} bytes are there")
            _environments[real] = found
        return found
