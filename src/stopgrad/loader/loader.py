"""Batches in an order that is a function of the seed, ready for the device.

Where a run stands is the number of steps it has taken: batch `step` is the same whether the run came there in one
go or was interrupted, and whatever was prefetched is forgotten without loss.
"""

import math
import os
from collections.abc import Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.augment import augment
from stopgrad.augment.draws import ViewDraws, draw_view
from stopgrad.cache.store import ImageStore
from stopgrad.config import Config
from stopgrad.data.prefetch import prepared_ahead
from stopgrad.data.shards.order import EpochOrder, layout_of
from stopgrad.distributed.rank import Rank
from stopgrad.errors import DataError
from stopgrad.hardware import choose_statistics
from stopgrad.objective.device import sent
from stopgrad.settings import Augmentation
from stopgrad.sharing import num_groups

_AHEAD = 3
_SMALL_PIXELS = 96 * 96
_PIXELS_AT_ONCE = 256 * 1024
# Of the images that views are cut from, on a device: 12 bytes a pixel of three channels, and some copies.
_PIXELS_ON_DEVICE = 2**28


@dataclass(frozen=True)
class Batch:
    """One step's images, before the part of augmentation that runs on the device.

    What belongs to views is in one row after another: all images' first views, then their second ones.
    """

    draws: ViewDraws
    """A row for each view of each image."""
    num_images: int
    size: int
    """Side of the views."""
    whole: Tensor | None
    """8 or 16 bits, `[image, channels, height, width]`: to be cut on the device; None where `crops` are cut already."""
    crops: Tensor | None
    """8 or 16 bits, `[view * image, channels, size, size]`, mirrored and turned where that was drawn."""
    positions: np.ndarray
    """Of the images in the store."""
    augmentation: Augmentation
    """By which the rows were drawn."""
    local: "Batch | None" = None
    """The local views of the same images, where the method takes any."""

    def __len__(self) -> int:
        return self.num_images


class Loader:
    """The training images in random order, epoch after epoch, without the remainder of each epoch.

    Args:
        store: the images.
        config: batch size, seed, views, augmentation, workers.
        rank: which share of each batch is this process's.
        device: where the views will be made. A CUDA device holds the images itself if they take no more than a quarter
            of its free memory; else batches wait for it in pinned memory, so that copying overlaps computing.
        views: of each image; 0: as many as the method takes, and its local views.
    """

    def __init__(
        self,
        store: ImageStore,
        config: Config,
        rank: Rank,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        *,
        views: int = 0,
    ) -> None:
        self.store, self.config, self.rank = store, config, rank
        self.num_views = views or config.objective.views
        self.num_local = 0 if views else config.objective.local_views
        self._layout = layout_of(store.source)
        self._streamed: EpochOrder | None = None
        self._on_cpu = device.type == "cpu"
        self._images, self._pins = store.stacked, device.type == "cuda"
        if self._pins and self._images is not None:
            free, _ = torch.cuda.mem_get_info(device)
            if self._images.nbytes <= free / 4:
                self._images, self._pins = self._images.to(device), False
        self.batch_size = min(config.training.batch_size, len(store))
        t = config.training
        self.statistics = choose_statistics(t.batch_statistics, device, t.batch_groups)
        """`global` or `local`, where there are several processes or groups."""
        self.groups = num_groups(t, rank.world, self.statistics)
        """Groups of a batch that see nothing of each other."""
        # Each group's mean counts alike.
        self.batch_size -= self.batch_size % self.groups
        self.steps_per_epoch = len(store) // self.batch_size if self.batch_size else 0
        self.total_steps = config.training.steps or config.training.epochs * self.steps_per_epoch

    def size_at(self, step: int) -> int:
        """Side of a step's views: `early_size` in the first part of the run, if that is set."""
        d = self.config.data
        return d.early_size if d.early_size and step < d.early_share * self.total_steps else d.image_size

    def indices(self, step: int) -> np.ndarray:
        """Positions in the store of this process's images of one step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        whole = order[place * self.batch_size : (place + 1) * self.batch_size]
        return whole[self.rank.index :: self.rank.world]

    def _order(self, epoch: int) -> "np.ndarray | EpochOrder":
        seed = self.config.training.seed
        if self._layout is None:
            return order_of_epoch(seed, epoch, len(self.store))
        order = self._streamed
        if order is None or order.epoch != epoch:
            order = self._streamed = EpochOrder(self._layout, seed, epoch)
        return order

    def rows(self, batch: Batch, step: int) -> tuple[list[int], int]:
        """Where the images of one's own part of a step stand in the whole batch, and how many a part has at most."""
        rows = range(self.rank.index, self.batch_size, self.rank.world)
        most = math.ceil(self.batch_size / self.rank.world)
        if len(batch) == len(rows):
            return list(rows), most
        # Some could not be read.
        read = np.isin(self.indices(step), batch.positions)
        return [row for row, is_read in zip(rows, read, strict=True) if is_read], most

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Batches of the steps `start` to `stop - 1`, prepared ahead in threads."""
        return prepared_ahead(self._load_all(range(start, stop)), _AHEAD)

    def _load_all(self, steps: range) -> Generator[Batch, None, None]:
        with ThreadPoolExecutor(self.config.data.workers or os.cpu_count()) as pool:
            for step in steps:
                yield self.load(self.indices(step), step // self.steps_per_epoch, pool, self.size_at(step))

    def load(self, positions: np.ndarray, epoch: int, pool: Executor, size: int | None = None) -> Batch:
        """Read images and draw the parameters of their views.

        Args:
            positions: of the images in the store.
            epoch: which draws.
            pool: threads to decode and crop in.
            size: side of the views; None: `image_size`. Local views keep theirs.

        Raises:
            DataError: fewer than two of the images can be read.
        """
        size = size or self.config.data.image_size
        whole: Tensor | None = None
        if self._images is not None and self._is_cut_whole(self._images.shape[2:]):
            whole = self._images.index_select(0, torch.from_numpy(positions).to(self._images.device))
            sizes = np.broadcast_to(np.array(whole.shape[2:]), (len(positions), 2))
            return self._batch(positions, epoch, sizes, size, whole, [], pool)
        read = list(pool.map(self.store.pixels, positions.tolist()))
        positions = positions[[image is not None for image in read]]
        images: list[np.ndarray] = [image for image in read if image is not None]
        if len(images) < 2:
            raise DataError(
                f"only {len(images)} of {len(read)} images of a batch can be read; {len(self.store.skipped)} "
                "unreadable so far. Remove them, or use a larger batch.",
                topic="unreadable-images",
            )
        sizes = np.array([image.shape[:2] for image in images])
        if len({image.shape for image in images}) == 1 and self._is_cut_whole(images[0].shape[:2]):
            # As a stacked store's: where images are kept makes no difference to what is computed of them.
            whole = torch.stack([_tensor(image) for image in images])
        return self._batch(positions, epoch, sizes, size, whole, images, pool)

    def _batch(
        self, positions: np.ndarray, epoch: int, sizes: np.ndarray, size: int, whole: Tensor | None,
        images: list[np.ndarray], pool: Executor,
    ) -> Batch:  # fmt: skip
        """The batch of images that were read: `whole`, where they are cut on the device, or else one by one."""
        whole = whole if whole is None else self._pin(whole)

        def of(a: Augmentation, views: range, side: int) -> Batch:
            draws = self._draw(a, epoch, positions, sizes, views)
            if whole is not None:
                return Batch(draws, len(positions), side, whole, None, positions, a)
            if a.geometry == "affine":
                back = augment.to_uint8 if images[0].dtype == np.uint8 else augment.to_uint16
                fitted = [back(augment.fit(_tensor(image)[None], side, side)) for image in images]
                return Batch(draws, len(positions), side, self._pin(torch.cat(fitted)), None, positions, a)
            rows = (images * len(views), draws.box, draws.flip, draws.vertical_flip, draws.quarters)
            crops = torch.stack(list(pool.map(partial(_crop, side), *rows)))
            return Batch(draws, len(positions), side, None, self._pin(crops), positions, a)

        batch = of(self.config.augmentation, range(self.num_views), size)
        if not self.num_local:
            return batch
        local = range(self.num_views, self.num_views + self.num_local)
        return replace(batch, local=of(self.config.augmentation.of_local_views, local, self.config.data.local_side))

    def views(self, batch: Batch, device: torch.device) -> Tensor:
        """The views of a batch on the device, normalised: float32 `[view, image, channels, size, size]`.

        Each view lies channels-last in memory.
        """
        a, size, count = batch.augmentation, batch.size, len(batch.draws)
        views = torch.empty((count, size, size, len(a.mean)), device=device).permute(0, 3, 1, 2)
        whole, crops = (x if x is None else sent(x, device) for x in (batch.whole, batch.crops))
        at_once = _views_at_once(device, size, whole if crops is None else crops)
        image = torch.arange(count, device=device) % len(batch)
        for start in range(0, count, at_once):
            some = slice(start, start + at_once)
            if whole is not None:
                pixels = augment.cut(whole.index_select(0, image[some]), batch.draws[some], a, size)
            else:
                assert crops is not None
                pixels = augment.to_unit(crops[some])
            augment.normalise(augment.recolour(pixels, batch.draws[some], a), a.mean, a.std, out=views[some])
        return views.unflatten(0, (-1, len(batch)))

    def all_views(self, batch: Batch, device: torch.device) -> tuple[Tensor, ...]:
        """The views, and the local views where the method takes any, as by `views`."""
        local = batch.local
        if local is not None and batch.whole is not None and local.whole is batch.whole:
            # The images that both are cut from are sent once.
            whole = sent(batch.whole, device)
            batch, local = replace(batch, whole=whole), replace(local, whole=whole)
        return tuple(self.views(part, device) for part in (batch, local) if part is not None)

    def _is_cut_whole(self, shape: Sequence[int]) -> bool:
        """Whether images of one size are cut on the device, all at once. On a CPU that pays for small ones alone."""
        return not self._on_cpu or math.prod(shape) <= _SMALL_PIXELS

    def _draw(
        self, a: Augmentation, epoch: int, positions: np.ndarray, sizes: np.ndarray, views: range
    ) -> ViewDraws:  # fmt: skip
        images, seed = np.array([self.store.kept[p] for p in positions], dtype=np.int64), self.config.training.seed
        return ViewDraws.join(
            [draw_view(a, seed=seed, epoch=epoch, images=images, view=view, sizes=sizes) for view in views]
        )

    def _pin(self, pixels: Tensor) -> Tensor:
        return pixels.pin_memory() if self._pins else pixels


def _views_at_once(device: torch.device, size: int, source: Tensor | None) -> int:
    """How many views are made at a time: on a CPU as many as its caches hold from one pass to the next."""
    if device.type == "cpu":
        return max(1, _PIXELS_AT_ONCE // size**2)
    assert source is not None
    return max(1, _PIXELS_ON_DEVICE // math.prod(source.shape[2:]))


def _crop(
    size: int, image: np.ndarray, box: np.ndarray, mirrored: np.bool_, upside_down: np.bool_, quarters: np.int64
) -> Tensor:  # fmt: skip
    """Cut, resize, antialiased, mirror and turn in a worker thread: for images of different sizes, or large ones."""
    top, left, height, width = box.tolist()
    cut = _tensor(image[top : top + height, left : left + width])[None]
    deep = cut.dtype == torch.uint16
    pixels = cut.float() if deep else cut
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    mirrors = [axis for axis, drawn in ((1, upside_down), (2, mirrored)) if drawn]
    turned = torch.rot90(resized.flip(mirrors) if mirrors else resized, int(quarters), (1, 2))
    # Rounded last: torch mirrors no 16-bit integers before 2.13.
    return turned.round_().clamp_(0, 65535).to(torch.uint16) if deep else turned


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1)


@lru_cache(maxsize=2)
def order_of_epoch(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """The order in which an epoch sees the images: a function of the arguments alone."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_images)
