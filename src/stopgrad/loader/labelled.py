"""Augmented views of labelled images, for training a classifier."""

from collections.abc import Generator
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stopgrad.cache.store import ImageStore
from stopgrad.config import Config
from stopgrad.data.prefetch import prepared_ahead
from stopgrad.distributed.rank import Rank
from stopgrad.hardware import usable_cores
from stopgrad.loader.loader import Batch, Loader, order_of_epoch

_AHEAD = 3


def batching(num_images: int, most: int) -> tuple[int, int]:
    """Steps an epoch and images of the largest batch, where `most` is the bound of a batch."""
    # Two images a batch at least: BatchNorm has no statistics of one.
    steps = max(1, min(-(-num_images // most), num_images // 2))
    return steps, -(-num_images // steps)


class LabelledViews:
    """One view of each image an epoch, each image in every epoch, in batches of nearly one size.

    Order and views are functions of the seed, as in pretraining.

    Args:
        store: the images.
        config: seed, image size, augmentation, workers; and the batch size, which is a bound: the images of an epoch
            are split evenly, so that there is no small last batch.
        device: where the views are made.
        positions: which images of the store; None: all.
    """

    def __init__(
        self, store: ImageStore, config: Config, device: torch.device, positions: np.ndarray | None = None
    ) -> None:
        self.loader = Loader(store, config, Rank(), device, views=1)
        self.store, self.device = store, device
        self.positions = np.arange(len(store)) if positions is None else positions
        self.labels = store.labels
        self._seed, self.workers = config.training.seed, config.data.workers or usable_cores()
        self.steps_per_epoch, self.batch_size = batching(len(self.positions), config.training.batch_size)

    def load(self, step: int, pool: Executor) -> Batch:
        """The batch of a step, of which `views` makes the rest; images are cut in the threads of `pool`.

        Raises:
            DataError: fewer than two of its images can be read.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self.positions[order_of_epoch(self._seed, epoch, len(self.positions))]
        return self.loader.load(np.array_split(order, self.steps_per_epoch)[place], epoch, pool)

    def views(self, batch: Batch) -> Float[Tensor, "image channel size size"]:
        """The views, normalised, on the device; channels-last in memory."""
        return self.loader.views(batch, self.device)[0]

    def labels_of(self, batch: Batch) -> Int[Tensor, "image"]:
        """The classes, on the CPU."""
        return self.labels[torch.from_numpy(batch.positions)]

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """What `load` makes of the steps `start` to `stop - 1`, prepared ahead in threads."""
        return prepared_ahead(self._load_all(range(start, stop)), _AHEAD)

    def _load_all(self, steps: range) -> Generator[Batch, None, None]:
        with ThreadPoolExecutor(self.workers) as pool:
            for step in steps:
                yield self.load(step, pool)
