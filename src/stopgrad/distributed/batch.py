"""The batch of a step as all processes share it: what is computed of all its images, wherever they are."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stopgrad.distributed.group import in_touch
from stopgrad.distributed.meeting import Meeting
from stopgrad.distributed.rank import Rank


class WholeBatch:
    """A batch of which one process has all the images: nothing is exchanged."""

    def begin(self, rows: Sequence[int], most: int) -> int:
        """Called before each step; the number of images of the batch.

        Args:
            rows: where this process's images stand in the batch of all processes.
            most: images that a process has at most.
        """
        return len(rows)

    def gather(self, own: Tensor) -> Tensor:
        """All images' rows `[image, ...]`, in the order of the batch, from one's own.

        A gradient passes to one's own rows, of a loss that every process computes alike of all rows.
        """
        return own

    def own(self, rows_of_all: Tensor) -> Tensor:
        """One's own rows of what has one for each image."""
        return rows_of_all

    def part(self, mean: Tensor) -> Tensor:
        """What a mean over one's own images adds to that over all: its average over processes is the latter."""
        return mean

    def mean(self, own: Tensor) -> Tensor:
        """A mean over all images, without gradient, from that over one's own."""
        return own

    def rows(self, images: Tensor) -> tuple[Tensor, int]:
        """Where one's own images stand in the batch, on the CPU, and how many there are in all."""
        return torch.arange(len(images)), len(images)


class SharedBatch(WholeBatch):
    """A batch of which each process has a share.

    Args:
        rank: which of how many processes this is.
        meeting: where those of a CPU meet, if they do; else they exchange messages of torch.distributed.
    """

    def __init__(self, rank: Rank, meeting: Meeting | None = None) -> None:
        self._rank, self._meeting = rank, meeting
        self._rows = self._places = torch.zeros(0, dtype=torch.int64)
        self._most = 0

    def begin(self, rows: Sequence[int], most: int) -> int:
        """As for `WholeBatch`; one process may have fewer images than another, or other ones missing."""
        self._most, self._rows = most, torch.tensor(rows, dtype=torch.int64)
        # Of images that are not there, no row.
        everyones = self.exchange(self._padded(self._rows + 1)).flatten()
        self._places = everyones.argsort(stable=True)[int((everyones == 0).sum()) :]
        # Rows are numbered anew where an image of the batch could not be read.
        self._rows = torch.searchsorted(everyones[self._places], self._rows + 1)
        return len(self._places)

    def gather(self, own: Tensor) -> Tensor:
        """As for `WholeBatch`."""
        gathered: Tensor = _Gather.apply(own, self)
        return gathered

    def own(self, rows_of_all: Tensor) -> Tensor:
        """As for `WholeBatch`."""
        return rows_of_all[self._rows.to(rows_of_all.device)]

    def part(self, mean: Tensor) -> Tensor:
        """As for `WholeBatch`."""
        return mean * (len(self._rows) * self._rank.world / len(self._places))

    def mean(self, own: Tensor) -> Tensor:
        """As for `WholeBatch`."""
        return self.exchange(self.part(own)).mean(dim=0)

    def rows(self, images: Tensor) -> tuple[Tensor, int]:
        """As for `WholeBatch`."""
        return self._rows, len(self._places)

    def exchange(self, own: Tensor) -> Tensor:
        """Everybody's tensors, of one shape and type: `[process, ...]`, without gradient."""
        if self._meeting is not None:
            return self._meeting.gather(own)
        everyones = own.new_empty((self._rank.world, *own.shape))
        with in_touch(self._rank):
            dist.all_gather_into_tensor(everyones.flatten(0, 1), own.contiguous())
        return everyones

    def rows_of_all(self, own: Tensor) -> Tensor:
        """As `gather`, without gradient."""
        return self.exchange(self._padded(own)).flatten(0, 1)[self._places.to(own.device)]

    def scaled(self, gradient: Tensor) -> Tensor:
        """Of the gradient that every process has of all rows, that of one's own, before the average over processes."""
        return self.own(gradient) * self._rank.world

    def _padded(self, own: Tensor) -> Tensor:
        return torch.cat([own, own.new_zeros((self._most - len(own), *own.shape[1:]))])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, batch: SharedBatch) -> Tensor:
        ctx.batch = batch
        return batch.rows_of_all(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.batch.scaled(gradient), None
