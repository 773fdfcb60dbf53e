"""A method as several processes train it."""

import torch
from torch import nn

from stopgrad.distributed.batch import SharedBatch
from stopgrad.distributed.gradients import SharedGradients
from stopgrad.distributed.rank import Rank
from stopgrad.methods.protocol import Method
from stopgrad.nets.norms import share_statistics, synchronise


class Together:
    """A method as the processes of a run train it; one process trains it as it is.

    Args:
        method: on its device; its BatchNorms are replaced where they are to see all processes' images.
        rank: which of how many processes this is.
        device: where it is.
        statistics: `global` or `local`: whether BatchNorm, partners and negatives are of all processes' images.
    """

    wrapped: nn.Module
    """What is called for a step's loss."""
    gradients: SharedGradients | None = None
    """Where the gradients of a CPU's processes are averaged; DistributedDataParallel does it on GPUs."""
    batches: int
    """How many batches a step has: one, or one for each process where statistics are local."""
    draws_as: int
    """The process by whose seed partners and coins are drawn."""

    def __init__(self, method: Method, rank: Rank, device: torch.device, *, statistics: str = "global") -> None:
        self.wrapped = method
        shares, on_gpu = rank.world > 1 and statistics == "global", device.type == "cuda"
        self.draws_as, self.batches = (0, 1) if shares else (rank.index, rank.world)
        if rank.world > 1 and not on_gpu:
            self.gradients = SharedGradients((p for p in method.parameters() if p.requires_grad), rank)
        if shares:
            batch = SharedBatch(rank, None if self.gradients is None else self.gradients.meeting)
            method.batch = batch
            if on_gpu:
                synchronise(method)
            else:
                share_statistics(method, batch.exchange)
        if rank.world > 1 and on_gpu:
            self.wrapped = nn.parallel.DistributedDataParallel(method, device_ids=[device.index])
