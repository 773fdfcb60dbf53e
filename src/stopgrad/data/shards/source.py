"""A set in shards as a source of images, each of which can be read at any time."""

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stopgrad.data.shards.access import OpenShard, copy_bytes, is_copied, open_copy, open_shard
from stopgrad.data.shards.ahead import Ahead
from stopgrad.data.shards.copies import Copies
from stopgrad.data.shards.index import About, Shard, ShardIndex, index_folder
from stopgrad.data.shards.order import Layout, num_groups
from stopgrad.data.shards.place import SMALL_BYTES
from stopgrad.data.shards.remote import GoneError
from stopgrad.data.sources import UNLABELLED
from stopgrad.errors import ConfigError

WINDOW = 10_000
"""Images that are shuffled together where `shuffle_buffer` leaves it open."""
RETRY_SECONDS = 300.0
"""A shard that could not be fetched is not asked for again before."""
IDLE_SECONDS = 5.0
"""A copy that was not read for so long is closed: another process may need its room."""
_MOST_OPEN = 128


class ShardedSource:
    """Images in shards: an `ImageSource` that holds a few numbers a shard, whatever number of images there is.

    Sets of `SMALL_BYTES` and more, and those with a shuffle buffer, are read shard by shard (`layout`).

    Args:
        shards: where the images are, in order.
        abouts: what their indices say.
        root: where the indices are.
        copies: where copies are, of shards that cannot be read in place.
        buffer: images that are shuffled together; 0: `WINDOW`, or all of a small set.
        keep: held as long as the source is, such as a temporary folder.

    Raises:
        ConfigError: there is no room for the copies of shards that are read together.
    """

    def __init__(
        self, shards: Sequence[Shard], abouts: Sequence[About], root: Path, copies: Copies, *, buffer: int = 0,
        keep: object = None,
    ) -> None:  # fmt: skip
        self.shards, self._root, self._copies, self._keep = shards, root, copies, keep
        self._starts = np.cumsum([0] + [about.num_images for about in abouts], dtype=np.int64)
        self.class_names: Sequence[str] = _class_names(abouts)
        self._copy_bytes = [copy_bytes(s, about) for s, about in zip(shards, abouts, strict=True)]
        self.damaged = {s.name: about.problem for s, about in zip(shards, abouts, strict=True) if about.problem}
        """Name of each shard of which something is missing -> what, in words."""
        is_small = sum(shard.size for shard in shards) < SMALL_BYTES
        self.window = buffer or (0 if is_small else WINDOW)
        """Images that are shuffled together; 0: all of them."""
        self._copied = any(is_copied(shard) for shard in shards)
        together = self._check_room(copies.limit_gb)
        self._most_open = min(_MOST_OPEN, together + 2)
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._indices: OrderedDict[int, ShardIndex] = OrderedDict()
        self._failed: dict[int, tuple[float, str]] = {}
        self._lock = threading.Lock()
        self._gates: dict[int, threading.Lock] = {}
        self._ahead = Ahead(self._fetch)
        copies.ask_for_room(self._close_one)
        self._latest = -1
        self._closes = False

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            OSError: its shard is gone, has changed, or cannot be fetched.
        """
        number, row = self._at(index)
        return self._opened(number).read(row)

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        return int(self.labels_of(np.array([index]))[0])

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """Labels of many images, int64 `[image]`."""
        labels = np.full(len(indices), UNLABELLED, dtype=np.int64)
        if not self.class_names:
            return labels
        numbers = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            labels[mine] = self._index(number).labels(indices[mine] - self._starts[number])
        return labels

    def name(self, index: int) -> str:
        """Shard and name in it, or row."""
        number, row = self._at(index)
        return f"{self.shards[number].name}/{self._index(number).name(row) or f'row {row}'}"

    def cache_key(self) -> str:
        """Paths, sizes and times of the shards, or what their servers say instead."""
        return hashlib.sha256("".join(shard.key for shard in self.shards).encode()).hexdigest()

    def layout(self) -> Layout | None:
        """Where shards begin, if images are to be read shard by shard."""
        return Layout(self._starts, self.window, self.expect) if self.window else None

    def expect(self, numbers: Sequence[int]) -> None:
        """Fetch shards before they are asked for."""
        if self._copied:
            self._ahead.want(numbers)

    def take_class_names(self, class_names: Sequence[str]) -> None:
        """Number the labels as another split does, by name; a class that it does not know becomes unlabelled."""
        with self._lock:
            self.class_names = class_names
            self._indices.clear()

    def _at(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def _check_room(self, limit_gb: float) -> int:
        """How many shards are read together; raises `ConfigError` without room for them and the next ones."""
        groups = num_groups(len(self.shards), len(self), self.window) if self.window else 1
        together = math.ceil(len(self.shards) / groups)
        sizes = [size for shard, size in zip(self.shards, self._copy_bytes, strict=True) if is_copied(shard)]
        num = min(2 * together + 2, len(sizes))
        needed = min(num * max(sizes, default=0), sum(sizes))
        if needed > limit_gb * 1e9:
            raise ConfigError(
                f"shard_cache_gb = {limit_gb:g}: {num} shards of up to {max(sizes) / 1e9:.3g} GB are read or fetched "
                f"at a time, which takes {needed / 1e9:.3g} GB. Give as much, or "
                + (f"lower shuffle_buffer = {self.window:,}." if self.window else "a shuffle_buffer.")
            )
        return together

    def _index(self, number: int) -> ShardIndex:
        with self._lock:
            if number not in self._indices:
                numbers = {name: place for place, name in enumerate(self.class_names)}
                self._indices[number] = ShardIndex(index_folder(self._root, self.shards[number]), numbers)
            self._indices.move_to_end(number)
            if len(self._indices) > self._most_open:
                self._indices.popitem(last=False)
            return self._indices[number]

    def _opened(self, number: int) -> OpenShard:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
            gate = self._gates.setdefault(number, threading.Lock())
        # One thread fetches; those that need the same shard wait for it here.
        with gate:
            with self._lock:
                if number in self._open:
                    return self._open[number]
            until, reason = self._failed.get(number, (0.0, ""))
            if time.monotonic() < until:
                raise OSError(reason)
            try:
                opened = self._open_shard(number)
            except OSError as error:
                again = math.inf if isinstance(error, GoneError) else time.monotonic() + RETRY_SECONDS
                self._failed[number] = again, error.strerror or str(error)
                raise
            with self._lock:
                self._open[number] = opened
                while len(self._open) > self._most_open:
                    self._open.popitem(last=False)
                if self._copied and not self._closes:
                    self._closes = True
                    threading.Thread(target=self._close_idle, name="stopgrad-shards", daemon=True).start()
                follows, self._latest = number == self._latest + 1, number
        if follows and self._copied and number + 1 < len(self.shards):
            self._ahead.also(number + 1)
        return opened

    def _open_shard(self, number: int) -> OpenShard:
        shard = self.shards[number]
        return open_shard(self._copies, shard, self._copy_bytes[number], self._index(number).images)

    def _close_one(self) -> None:
        """Close the shard that was not used for longest; it is opened again when it is needed."""
        with self._lock:
            if self._open:
                self._open.popitem(last=False)

    def _close_idle(self) -> None:
        """Close what is not read from any more, until nothing is open."""
        while self._closes:
            time.sleep(IDLE_SECONDS / 4)
            with self._lock:
                since = time.monotonic() - IDLE_SECONDS
                for number in [number for number, opened in self._open.items() if opened.used < since]:
                    del self._open[number]
                self._closes = bool(self._open)

    def _fetch(self, number: int) -> None:
        """Make the copy of a shard, if it needs one."""
        shard = self.shards[number]
        if is_copied(shard) and number not in self._failed and not self._copies.has(shard):
            open_copy(self._copies, shard, self._copy_bytes[number], waits=False).close()


def _class_names(abouts: Sequence[About]) -> list[str]:
    """The classes of all shards: as they are listed where all list the same, else sorted, numbers by their value."""
    first = abouts[0].classes if abouts else ()
    # By order of appearance they may be listed in any order.
    listed = [list(about.classes) for about in abouts]
    found = {name for names in listed for name in names}
    if len(found) < 2:
        return []
    if all(about.is_named for about in abouts) and all(names == list(first) for names in listed):
        return list(first)
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found)
