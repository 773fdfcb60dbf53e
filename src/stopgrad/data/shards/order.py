"""The order in which an epoch sees a set in shards: a function of seed and epoch that keeps to few shards at a time."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TOGETHER = 4
"""At least so many shards are mixed with each other."""
_RUNS_A_WINDOW = 256


@dataclass(frozen=True)
class Layout:
    """Where shards begin, of a set whose images are read shard by shard."""

    starts: np.ndarray
    """int64 `[shard + 1]`: the index of each shard's first image, and the number of images."""
    window: int
    """Images that are shuffled together."""
    expect: Callable[[Sequence[int]], None]
    """Told which shards are read next, in order."""

    def part(self, indices: range) -> "Layout":
        """The layout of the images in a range."""
        return Layout(np.clip(self.starts - indices.start, 0, len(indices)), self.window, self.expect)

    def few(self, num: int, generator: np.random.Generator) -> np.ndarray:
        """`num` images at random out of few shards: all of them if there are no more.

        Shards are drawn until they hold four times as many, and there are at least four of them.
        """
        counts, chosen = np.diff(self.starts), []
        held = 0
        for shard in generator.permutation(len(counts)):
            chosen.append(shard)
            held += int(counts[shard])
            if held >= 4 * num and len(chosen) >= TOGETHER:
                break
        if held <= num:
            return np.concatenate([np.arange(self.starts[shard], self.starts[shard + 1]) for shard in chosen])
        # Places in the chosen shards, one after the other, without a list of all of them.
        picked = np.sort(generator.choice(held, size=min(num, held), replace=False, shuffle=False))
        ends = np.cumsum(counts[chosen])
        shard = np.searchsorted(ends, picked, side="right")
        first = self.starts[np.array(chosen)]
        indices = first[shard] + picked - (ends - counts[chosen])[shard]
        return generator.permutation(indices)


def layout_of(source: Any) -> Layout | None:
    """The layout of a source that is read shard by shard; None: images are read in any order at no loss."""
    layout: Layout | None = source.layout() if hasattr(source, "layout") else None
    return layout


def draw_from(source: Any, num: int, generator: np.random.Generator) -> np.ndarray:
    """`num` indices at random, or as many as there are; of a source that is read shard by shard out of a few shards."""
    layout = layout_of(source)
    return generator.permutation(len(source))[:num] if layout is None else layout.few(num, generator)


def num_groups(num_shards: int, num_images: int, window: int) -> int:
    """How many groups shards are read in."""
    return max(1, min(num_shards // TOGETHER, num_images // window))


class EpochOrder:
    """The order of an epoch; `order[start:stop]` are indices of images, each once in an epoch.

    Shards are permuted and taken in groups of one size, of at least four that hold a window of images on average. The
    images of a group are cut into short runs, which are permuted; as many as fill a window are then shuffled image by
    image. So a window draws on all shards of its group, and no list of all images is needed.
    """

    def __init__(self, layout: Layout, seed: int, epoch: int) -> None:
        self.layout, self.seed, self.epoch = layout, seed, epoch
        counts = np.diff(layout.starts)
        shards = self._generator(0).permutation(len(counts))
        shards = shards[counts[shards] > 0]
        groups = np.array_split(shards, num_groups(len(shards), int(counts.sum()), layout.window))
        self.groups: list[list[int]] = [group.tolist() for group in groups]
        """Shards, in the order in which they are read."""
        self.ends = np.cumsum([int(counts[group].sum()) for group in self.groups], dtype=np.int64)
        self._windows: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._told = -1

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, places: slice) -> np.ndarray:
        start, stop, _ = places.indices(len(self))
        parts = [np.empty(0, dtype=np.int64)]
        while start < stop:
            group = int(np.searchsorted(self.ends, start, side="right"))
            self._tell(group)
            begin = int(self.ends[group - 1]) if group else 0
            window, offset = divmod(start - begin, self.layout.window)
            part = self._window(group, window)[offset : offset + stop - start]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts)

    def _tell(self, group: int) -> None:
        """Say which shards come next: those of this group and of the one after it, be it of the next epoch."""
        if group == self._told:
            return
        self._told = group
        last = group + 1 == len(self.groups)
        after = EpochOrder(self.layout, self.seed, self.epoch + 1).groups[0] if last else self.groups[group + 1]
        self.layout.expect([*self.groups[group], *after])

    def _window(self, group: int, window: int) -> np.ndarray:
        if (group, window) not in self._windows:
            self._windows[group, window] = self._shuffled(group, window)
            if len(self._windows) > 2:
                self._windows.popitem(last=False)
        return self._windows[group, window]

    def _shuffled(self, group: int, window: int) -> np.ndarray:
        length = max(1, self.layout.window // _RUNS_A_WINDOW)
        shards = [(int(self.layout.starts[s]), int(self.layout.starts[s + 1])) for s in self.groups[group]]
        first = np.concatenate([np.arange(start, stop, length) for start, stop in shards])
        last = np.concatenate([np.minimum(np.arange(start, stop, length) + length, stop) for start, stop in shards])
        order = self._generator(1, group).permutation(len(first))
        first, last = first[order], last[order]
        ends = np.cumsum(last - first)
        start, stop = window * self.layout.window, min((window + 1) * self.layout.window, int(ends[-1]))
        from_run, to_run = np.searchsorted(ends, [start, stop - 1], side="right")
        indices = np.concatenate([np.arange(first[run], last[run]) for run in range(from_run, to_run + 1)])
        before = int(ends[from_run] - (last - first)[from_run])
        indices = indices[start - before : stop - before]
        return self._generator(2, group, window).permutation(indices)

    def _generator(self, *purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, self.epoch, *purpose]))
