"""A method as several processes train it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Generator, Tensor, nn

from stopgrad.distributed.batch import SharedBatch
from stopgrad.distributed.gradients import SharedGradients
from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError
from stopgrad.methods.protocol import Method
from stopgrad.methods.siamese import Siamese
from stopgrad.nets.norms import share_statistics, synchronise


class Together:
    """A method as the processes of a run train it; one process trains it as it is.

    Args:
        method: on its device; its BatchNorms are replaced where they are to see all processes' images.
        rank: which of how many processes this is.
        device: where it is.
        statistics: `global` or `local`: whether BatchNorm, partners and negatives are of all processes' images.
        accumulate: parts that a step's images are trained in, one after another.

    Raises:
        ConfigError: parts, with a method or a guide that takes none.
    """

    wrapped: nn.Module
    """What is called for a step's loss."""
    gradients: SharedGradients | None = None
    """Where the gradients of a CPU's processes are averaged; DistributedDataParallel does it on GPUs."""
    batches: int
    """How many batches a step has: one, or one for each process where statistics are local."""
    draws_as: int
    """The process by whose seed partners and coins are drawn."""

    def __init__(
        self, method: Method, rank: Rank, device: torch.device, *, statistics: str = "global", accumulate: int = 1
    ) -> None:
        if accumulate > 1 and not (isinstance(method, Siamese) and method.choice.keeps_all):
            raise ConfigError(f"accumulate = {accumulate} needs simsiam or byol, and a guide that keeps all images.")
        self.wrapped = self._method = method
        self.accumulate = accumulate
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

    def backward(
        self, views: tuple[Tensor, ...], generator: Generator, context: Callable[[], AbstractContextManager[object]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradients of a step's loss -> (the loss, without gradient; diagnostics).

        Args:
            views: the views of one's own images and, where the method takes any, their local views.
            generator: decides partners and coins.
            context: makes the context of a forward pass.
        """
        if self.accumulate == 1:
            with context():
                loss, diagnostics = self.wrapped(views[0], generator, *views[1:])
            loss.backward()
            return loss.detach(), diagnostics
        assert isinstance(self._method, Siamese)
        parts = list(zip(*(kind.tensor_split(self.accumulate, dim=1) for kind in views), strict=True))
        with context():
            chosen, diagnostics = self._method.choose_ahead([part[0] for part in parts], generator)
        total = torch.zeros((), device=views[0].device)
        for part, *given in zip(parts, *(rows.tensor_split(self.accumulate) for rows in chosen), strict=True):
            # DistributedDataParallel sends gradients once, with the last part.
            wrapped, is_last = self.wrapped, part is parts[-1]
            sends = is_last or not isinstance(wrapped, nn.parallel.DistributedDataParallel)
            with nullcontext() if sends else wrapped.no_sync():  # type: ignore[operator]
                with context():
                    loss, _ = wrapped(part[0], generator, *part[1:], given=tuple(given))
                loss = loss * (part[0].shape[1] / views[0].shape[1])
                loss.backward()
            total = total + loss.detach()
        return total, diagnostics
