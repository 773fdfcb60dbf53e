"""Sets in shards: from what a path says to sources of images."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import stopgrad.caching as caching
from stopgrad.data.decode import Progress, in_order
from stopgrad.data.kinds.parquet import ParquetSource
from stopgrad.data.shards.access import local_shard, make_entries
from stopgrad.data.shards.copies import Copies
from stopgrad.data.shards.index import Shard, ensure_index, wait_lock
from stopgrad.data.shards.place import (
    PARQUET,
    SMALL_BYTES,
    SUFFIXES,
    is_remote,
    local_shards,
    name_of,
    suffix_of,
)
from stopgrad.data.shards.remote import identify, list_remote
from stopgrad.data.shards.source import ShardedSource
from stopgrad.data.shared.layout import TEST_NAMES, TRAIN_NAMES
from stopgrad.data.sources import ImageSource, Splits
from stopgrad.errors import DataError
from stopgrad.settings import Data

_AT_ONCE = 16
_DOWNLOADS = 4


def open_shards(text: str, settings: Data, progress: Progress | None = None) -> Splits:
    """Open a set in shards; those that are new are indexed, which reads each tar archive once.

    Args:
        text: paths, patterns and addresses of shards, `::` between them.
        settings: where indices and copies are kept, how large copies may be, and how images are shuffled.
        progress: told of shards indexed.

    Returns:
        The images; shards called train and test (or val) are splits.

    Raises:
        DataError: a shard that is not there or cannot be read, or no image in any.
        ConfigError: no room for copies.
    """
    places = [place for found in local_shards(text) for place in (list_remote(found) if is_remote(found) else [found])]
    kinds = {suffix_of(place) for place in places}
    if len(kinds) != 1 or not kinds <= set(SUFFIXES):
        raise DataError(
            f"{name_of(text)!r} means files of {', '.join(sorted(kinds))}: needs .tar or .parquet, and all the same."
        )
    shards = _identified(places)
    is_small = sum(shard.size for shard in shards) < SMALL_BYTES
    open_source: Callable[[Sequence[Shard]], Any]
    if kinds == {PARQUET} and is_small and not settings.shuffle_buffer and not any(shard.remote for shard in shards):

        def open_source(some: Sequence[Shard]) -> ParquetSource:
            return ParquetSource([Path(shard.place) for shard in some])
    else:
        open_source = _Opening(settings, progress).open
    train = [shard for shard in shards if _file_name(shard).startswith(TRAIN_NAMES)]
    if not train:
        return Splits(name_of(text), open_source(shards))
    source: ImageSource = open_source(train)
    for name in TEST_NAMES:
        test = [shard for shard in shards if _file_name(shard).startswith(name)]
        if test:
            test_source = open_source(test)
            test_source.take_class_names(source.class_names)
            return Splits(name_of(text), source, test_source)
    return Splits(name_of(text), source)


class _Opening:
    """What the splits of a set have in common while they are opened."""

    def __init__(self, settings: Data, progress: Progress | None) -> None:
        self._buffer, self._progress = settings.shuffle_buffer, progress
        kept = caching.cache_root(settings.cache)
        self._temporary = tempfile.TemporaryDirectory(prefix="stopgrad-shards-") if kept is None else None
        self._root = kept / "shards" if kept is not None else Path(self._temporary.name)  # type: ignore[union-attr]
        if not caching.AVAILABLE:
            raise DataError(f"{sys.platform} has no locks on files, by which processes share what they know of shards.")
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            wait_lock(self._root / "room.lock").close()
        except OSError as error:
            raise DataError(
                f"the index of the shards cannot be kept in {self._root}: {error.strerror}. cache = a folder places it "
                "elsewhere, cache = 'off' in a temporary folder.",
                topic="disk-full",
            ) from error
        self._copies = Copies(self._root, settings.shard_cache_gb)

    def open(self, shards: Sequence[Shard]) -> ShardedSource:
        """The images of some shards."""
        abouts = []
        with ThreadPoolExecutor(_DOWNLOADS if any(shard.remote for shard in shards) else 1) as pool:
            for about in in_order(pool, self._index, shards):
                abouts.append(about)
                if self._progress is not None:
                    self._progress(len(abouts), len(shards))
        source = ShardedSource(
            shards, abouts, self._root, self._copies, buffer=self._buffer, keep=self._temporary
        )  # fmt: skip
        if not len(source):
            name, problem = next(iter(source.damaged.items()), (shards[0].name, "no image in it"))
            raise DataError(f"{len(shards)} shards hold no image; the first: {name}: {problem}.")
        return source

    def _index(self, shard: Shard) -> Any:
        try:
            return ensure_index(self._root, shard, lambda new: make_entries(self._copies, new))
        except OSError as error:
            raise DataError(f"{shard.name} cannot be read: {error.strerror or error}.") from error


def _identified(places: Sequence[str]) -> list[Shard]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(in_order(pool, lambda place: identify(place) if is_remote(place) else local_shard(place), places))


def _file_name(shard: Shard) -> str:
    return os.path.basename(shard.name).lower()
