"""Images decoded once, in the cache or in memory; decoded anew every epoch where neither has room for them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from stopgrad.cache.cache import ImageCache
from stopgrad.cache.entry import CacheEntry
from stopgrad.data.decode import Progress, evenly_spaced, in_order, read_image, spread_over
from stopgrad.data.pixels import RGB8, PixelFormat, UnreadableImageError
from stopgrad.data.shards.order import layout_of
from stopgrad.data.sources import ImageSource, Subset, damaged_of, labels_of
from stopgrad.errors import DataError


@dataclass
class ImageStore:
    """The readable images of a source, by position; decoded pixels where the cache or memory allows."""

    source: ImageSource
    shortest: int
    """Longer images are reduced to this shorter side when decoded."""
    kept: Sequence[int]
    """Position -> index in the source; unreadable images found so far have no position."""
    pixels_are: PixelFormat = RGB8
    """What images are decoded to."""
    decoded: Sequence[np.ndarray] | None = None
    """`[height, width, channels]` each, if held in memory or cached, and of several sizes."""
    stacked: Tensor | None = None
    """`[image, channels, height, width]`, if held in memory or cached, and all of one size."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Name -> reason of each image that cannot be read."""
    strict: bool = False
    entry: CacheEntry | None = None
    """Where the pixels are cached; held here so that nobody removes it."""

    def __post_init__(self) -> None:
        self._note_damaged()

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def labels(self) -> Tensor:
        """int64 `[image]`; -1 where there is none."""
        return torch.from_numpy(labels_of(self.source, np.asarray(self.kept, dtype=np.int64)))

    def labels_of(self, positions: Sequence[int]) -> Tensor:
        """int64 `[image]`, of some images; -1 where there is none."""
        indices = np.array([self.kept[position] for position in positions], dtype=np.int64)
        return torch.from_numpy(labels_of(self.source, indices))

    def draw(self, num: int, generator: np.random.Generator) -> np.ndarray:
        """`num` positions at random, or as many as there are; of a set in shards out of a few of them."""
        # Unreadable images of a set in shards have a position.
        layout = layout_of(self.source)
        return generator.permutation(len(self))[:num] if layout is None else layout.few(num, generator)

    def spread(self, num: int) -> list[int]:
        """`num` positions, evenly spaced, or as many as there are; of a set in shards out of a few of them."""
        if layout_of(self.source) is not None:
            return spread_over(self.source, num)
        return evenly_spaced(len(self), num)

    @property
    def whereabouts(self) -> str:
        """Where the pixels are, in words."""
        if self.entry is not None:
            return f"cached in {self.entry.folder.parent}"
        return "decoded every epoch" if self.stacked is None and self.decoded is None else "in memory"

    def name(self, position: int) -> str:
        """What to call an image in a message."""
        return self.source.name(self.kept[position])

    def pixels(self, position: int) -> np.ndarray | None:
        """`[height, width, channels]`; None for an image that turns out unreadable, which is noted in `skipped`."""
        if self.stacked is not None:
            return self.stacked[position].permute(1, 2, 0).numpy()
        if self.decoded is not None:
            return self.decoded[position]
        return self._decode(self.kept[position])

    def fingerprint(self) -> str:
        """A digest of what the images are called and labelled and how many they are: another data set is told."""
        digest = hashlib.sha256(str(len(self)).encode())
        for index in self.kept[:: max(1, len(self) // 1000)]:
            digest.update(f"{os.path.basename(self.source.name(index))}:{self.source.label(index)};".encode())
        return digest.hexdigest()[:16]

    def _decode(self, index: int) -> np.ndarray | None:
        try:
            return read_image(self.source, index, self.shortest, self.pixels_are)
        except UnreadableImageError as error:
            self._skip(index, str(error), error)
            return None

    def _note_damaged(self) -> None:
        for name, reason in damaged_of(self.source).items():
            if self.strict:
                raise DataError(f"{name} cannot be read as a whole: {reason}.", topic="unreadable-images")
            self.skipped[name] = reason

    def _skip(self, index: int, reason: str, error: Exception | None = None) -> None:
        name = self.source.name(index)
        if self.strict:
            raise DataError(f"{name} cannot be read: {reason}.", topic="unreadable-images") from error
        self.skipped[name] = reason

    def _take_from(self, entry: CacheEntry, places: Sequence[int], most_bytes: float) -> None:
        """Use a cache entry; `places` are the indices of the source's images in the source that the entry is of."""
        self.entry, kept = entry, []
        for index, place in enumerate(places):
            if place in entry.unreadable:
                self._skip(index, entry.unreadable[place].reason)
            else:
                kept.append(index)
        self.kept = kept
        chosen = [places[index] for index in self.kept]
        stacked = entry.stacked
        if stacked is not None:
            rows = torch.from_numpy(entry.rows(chosen))
            if torch.equal(rows, torch.arange(len(stacked))):
                self.stacked = stacked
            elif stacked[:1].nbytes * len(rows) <= most_bytes:
                self.stacked = stacked[rows]
        if self.stacked is None:
            self.decoded = entry.images(chosen)


def load_images(
    source: ImageSource, *, shortest: int, memory_gb: float = 4.0, workers: int = 0, strict: bool = False,
    cache: ImageCache | None = None, progress: Progress | None = None, pixels: PixelFormat = RGB8,
) -> ImageStore:  # fmt: skip
    """Decode a source into the cache or, where that takes it not, into memory if it fits.

    A set that is read shard by shard stays encoded: decoded it takes many times the room, and to decode all of it first
    would be a pass more.

    Args:
        source: where the images are.
        shortest: images with a longer shorter side are reduced to it.
        memory_gb: images that would need more, judging by the first ones, are left to be decoded when needed.
        workers: decoding threads; 0: one per core.
        strict: refuse unreadable images instead of skipping them.
        cache: where decoded images are kept for later runs; a part of a source is taken out of the whole's entry.
        progress: called with (images done, images in all).
        pixels: what images are decoded to.

    Raises:
        DataError: no image can be read, or one cannot and `strict` is set.
    """
    store = ImageStore(source, shortest, kept=range(len(source)), strict=strict, pixels_are=pixels)
    if layout_of(source) is not None:
        return store
    whole, places = _whole_of(source)
    # Not the whole of a large set for a part of it.
    if cache is not None and layout_of(whole) is None:
        entry = cache.open(whole, shortest=shortest, workers=workers, strict=strict, progress=progress, pixels=pixels)
        if entry is not None:
            store._take_from(entry, places, memory_gb * 1e9)
            return _checked(store)
    sample = [p for i in evenly_spaced(len(source), 16) if (p := store._decode(i)) is not None]
    store.skipped.clear()
    store._note_damaged()
    if sample and float(np.mean([p.nbytes for p in sample])) * len(source) > memory_gb * 1e9:
        return store
    decoded: list[np.ndarray] = []
    kept: list[int] = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for index, image in enumerate(in_order(pool, store._decode, range(len(source)))):
            if image is not None:
                decoded.append(image)
                kept.append(index)
            if progress is not None:
                progress(index + 1, len(source))
    store.kept = kept
    _checked(store)
    if len({p.shape for p in decoded}) == 1:
        height, width, channels = decoded[0].shape
        kind = torch.uint8 if pixels.depth == 8 else torch.uint16
        store.stacked = torch.empty((len(decoded), channels, height, width), dtype=kind)
        for position, image in enumerate(decoded):
            store.stacked[position] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            decoded[position] = _FREED
    else:
        store.decoded = decoded
    return store


_FREED = np.empty(0, dtype=np.uint8)


def first_skipped(source: ImageSource, skipped: Mapping[str, str]) -> tuple[str, str]:
    """Name of the first image that could not be read, in the order of the source, and why."""
    names = (source.name(index) for index in range(len(source)))
    return next(((name, skipped[name]) for name in names if name in skipped), ("the source", "it is empty"))


def _checked(store: ImageStore) -> ImageStore:
    if not store.kept:
        name, reason = first_skipped(store.source, store.skipped)
        raise DataError(
            f"none of {len(store.source)} images can be read; the first: {name}: {reason}.", topic="unreadable-images"
        )
    return store


def _whole_of(source: ImageSource) -> tuple[ImageSource, Sequence[int]]:
    """The source that a part is of, and the part's indices in it."""
    places: Sequence[int] = range(len(source))
    while isinstance(source, Subset):
        places = [int(source.indices[place]) for place in places]
        source = source.source
    return source, places
