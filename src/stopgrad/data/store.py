"""Images decoded once and held in memory where they fit, decoded anew every epoch where they do not."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from stopgrad.data.decode import UnreadableImageError, decode
from stopgrad.data.sources import ImageSource
from stopgrad.errors import DataError

Progress = Callable[[int, int], None]


@dataclass
class ImageStore:
    """The readable images of a source, by position; decoded pixels where memory allows."""

    source: ImageSource
    shortest: int
    """Longer images are reduced to this shorter side when decoded."""
    kept: list[int]
    """Position -> index in the source; unreadable images found so far have no position."""
    decoded: list[np.ndarray] | None = None
    """uint8 `[height, width, 3]` each, if held in memory and of several sizes."""
    stacked: Tensor | None = None
    """uint8 `[image, 3, height, width]`, if held in memory and all of one size."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Name -> reason of each image that cannot be read."""
    strict: bool = False

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def labels(self) -> Tensor:
        """int64 `[image]`; -1 where there is none."""
        return torch.tensor([self.source.label(i) for i in self.kept], dtype=torch.int64)

    def name(self, position: int) -> str:
        """What to call an image in a message."""
        return self.source.name(self.kept[position])

    def pixels(self, position: int) -> np.ndarray | None:
        """uint8 `[height, width, 3]`; None for an image that turns out unreadable, which is noted in `skipped`."""
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
            return decode(self.source.read(index), shortest=self.shortest)
        except (UnreadableImageError, OSError) as error:
            name, reason = self.source.name(index), getattr(error, "strerror", None) or str(error)
            if self.strict:
                raise DataError(f"{name} cannot be read: {reason}.") from error
            self.skipped[name] = reason
            return None


def load_images(
    source: ImageSource, *, shortest: int, memory_gb: float = 4.0, workers: int = 0, strict: bool = False,
    progress: Progress | None = None,
) -> ImageStore:  # fmt: skip
    """Decode a source into memory if it fits.

    Args:
        source: where the images are.
        shortest: images with a longer shorter side are reduced to it.
        memory_gb: images that would need more, judging by the first ones, are left to be decoded when needed.
        workers: decoding threads; 0: one per core.
        strict: refuse unreadable images instead of skipping them.
        progress: called with (images done, images in all).

    Raises:
        DataError: no image can be read, or one cannot and `strict` is set.
    """
    store = ImageStore(source, shortest, kept=list(range(len(source))), strict=strict)
    sample = [p for i in _spread(len(source), 16) if (p := store._decode(i)) is not None]
    store.skipped.clear()
    if sample and float(np.mean([p.nbytes for p in sample])) * len(source) > memory_gb * 1e9:
        return store
    decoded: list[np.ndarray] = []
    kept: list[int] = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for index, pixels in enumerate(_in_order(pool, store._decode, range(len(source)))):
            if pixels is not None:
                decoded.append(pixels)
                kept.append(index)
            if progress is not None:
                progress(index + 1, len(source))
    if not kept:
        first = next(iter(store.skipped.items()), ("the source", "it is empty"))
        raise DataError(f"none of {len(source)} images can be read; the first: {first[0]}: {first[1]}.")
    store.kept = kept
    if len({p.shape for p in decoded}) == 1:
        height, width, _ = decoded[0].shape
        store.stacked = torch.empty((len(decoded), 3, height, width), dtype=torch.uint8)
        for position, pixels in enumerate(decoded):
            store.stacked[position] = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
            decoded[position] = _FREED
    else:
        store.decoded = decoded
    return store


_FREED = np.empty(0, dtype=np.uint8)


def _spread(length: int, num: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, length - 1, min(num, length))}) if length else []


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[int], np.ndarray | None], items: Iterable[int]
) -> Iterator[np.ndarray | None]:
    """`pool.map` with a bounded number of results waiting."""
    waiting = []
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= 64:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()
