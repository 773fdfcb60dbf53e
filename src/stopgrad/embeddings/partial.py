"""Rows of an unfinished file of embeddings, kept beside it until they are all there.

Two files: the vectors as raw float32, and a journal that says what they belong to and how many are whole. The journal
is replaced after the vectors are on disk; vectors beyond it, from a process that was killed, are cut off.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import stopgrad.caching as caching
from stopgrad.artifacts.files import write_atomically
from stopgrad.errors import ConfigError

FORMAT = "stopgrad-partial-embeddings-1"
SECONDS_BETWEEN_SAVES = 5.0


class Done(NamedTuple):
    """How far the work is."""

    images: int = 0
    skipped: int = 0
    """Images among them without a row."""

    @property
    def rows(self) -> int:
        """Vectors that count."""
        return self.images - self.skipped


class Partial:
    """The rows so far; held alone by one process.

    Args:
        target: the file they are for.
        dim: length of a row.
        belongs_to: everything that the rows depend on.

    Raises:
        ConfigError: another process is writing the same file.
    """

    def __init__(self, target: Path, dim: int, belongs_to: dict[str, Any]) -> None:
        self.rows_file = target.with_name(f"{target.name}.partial")
        self.journal_file = target.with_name(f"{target.name}.partial.json")
        self.dim, self.belongs_to = dim, belongs_to
        self.done = Done()
        self.skipped: list[tuple[int, str, str]] = []
        """Place, name and reason of each image that has no row."""
        self.differs: list[str] = []
        """In what an earlier partial file, which was dropped, belongs to something else."""
        self._lock = _locked(self.rows_file)
        self._take_up()
        self._file = open(self.rows_file, "r+b" if self.rows_file.exists() else "w+b")  # noqa: SIM115 - closed in `close`
        self._file.truncate(self.done.rows * dim * 4)
        self._file.seek(0, os.SEEK_END)
        self._saved = time.monotonic()

    def _take_up(self) -> None:
        try:
            journal = json.loads(self.journal_file.read_text(encoding="utf-8"))
            belonged = dict(journal["belongs_to"])
            skipped = [(int(i), str(name), str(reason)) for i, name, reason in journal["skipped"]]
            done = Done(int(journal["images"]), len(skipped))
            if journal["format"] != FORMAT:
                raise ValueError("another format")
            whole = self.rows_file.stat().st_size >= done.rows * self.dim * 4
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self.differs = ["its journal is damaged"]
            return
        names = {**belonged, **self.belongs_to}
        self.differs = [f"another {n}" for n in names if belonged.get(n) != self.belongs_to.get(n)]
        if not self.differs and not whole:
            self.differs = ["it is cut off"]
        if not self.differs:
            self.done, self.skipped = done, skipped

    def add(self, vectors: np.ndarray, done: Done, skipped: Sequence[tuple[int, str, str]]) -> None:
        """Add rows and what was skipped on the way.

        An interruption, wherever it falls, leaves both counted or neither: it is one assignment that counts them.
        """
        self._file.write(np.ascontiguousarray(vectors, dtype=np.float32).data)
        self.skipped += skipped
        self.done = done

    def save_now_and_then(self) -> None:
        """`save`, if the last time is a while ago."""
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Put everything so far on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        journal = {
            "format": FORMAT, "belongs_to": self.belongs_to, "images": self.done.images,
            "skipped": self.skipped[: self.done.skipped],
        }  # fmt: skip
        write_atomically(self.journal_file, lambda part: part.write_text(json.dumps(journal), encoding="utf-8"))
        self._saved = time.monotonic()

    def vectors(self) -> np.ndarray:
        """All rows, `[row dim]`, mapped from disk."""
        return np.memmap(self.rows_file, dtype=np.float32, mode="r", shape=(self.done.rows, self.dim))

    def close(self) -> None:
        """Let go, and leave the files."""
        self._file.close()
        if self._lock is not None:
            self._lock.close()

    def remove(self) -> None:
        """Delete the files: what they were for is there.

        Of `vectors` nothing may be in use any more: Windows deletes no file that is open or mapped.
        """
        self._file.close()
        self.journal_file.unlink(missing_ok=True)
        self.rows_file.unlink(missing_ok=True)


def _locked(file: Path) -> "caching.FileLock | None":
    """A lock on the rows; None on a file system without locks."""
    if not caching.AVAILABLE:
        return None
    while True:
        try:
            lock = caching.try_lock(file, create=True)
        except PermissionError:
            raise
        except OSError:
            return None
        if lock is None:
            raise ConfigError(f"{file.name.removesuffix('.partial')} is being written by another process: let it end.")
        if lock.is_on(file):
            return lock
        # The process that held it has finished meanwhile and removed the file.
        lock.close()
