"""A method as several processes train it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Generator, Tensor, nn

from stopgrad.distributed.batch import SharedBatch
from stopgrad.distributed.gradients import SharedGradients
from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError, DataError
from stopgrad.methods.protocol import Method
from stopgrad.methods.siamese import Siamese
from stopgrad.nets.norms import share_statistics, statistics_kept, synchronise
from stopgrad.objective.device import sent


class Together:
    """A method as the processes of a run train it; one process trains it as it is.

    Args:
        method: on its device; its BatchNorms are replaced where they are to see all processes' images.
        rank: which of how many processes this is.
        device: where it is.
        statistics: `global` or `local`: whether BatchNorm, partners and negatives are of all processes' images.
        groups: of a batch, each with what it would have in a process of its own, with `local`; a multiple of the
            number of processes, which have as many each. At least one for each process.
        accumulate: parts that a step's images are trained in, one after another.

    Raises:
        ConfigError: parts, with a method or a guide that takes none; several groups in a process, with a guide that may
            remember what it saw.
    """

    wrapped: nn.Module
    """What is called for a step's loss."""
    gradients: SharedGradients | None = None
    """Where the gradients of a CPU's processes are averaged; DistributedDataParallel does it on GPUs."""
    batches: int
    """How many batches a step has: one, or one for each process where statistics are local."""

    def __init__(
        self, method: Method, rank: Rank, device: torch.device, *, statistics: str = "global", groups: int = 0,
        accumulate: int = 1,
    ) -> None:  # fmt: skip
        if accumulate > 1 and not (isinstance(method, Siamese) and method.choice.keeps_all):
            raise ConfigError(f"accumulate = {accumulate} needs simsiam or byol, and a guide that keeps all images.")
        self.wrapped = self._method = method
        self.accumulate, self._rank = accumulate, rank
        shares, on_gpu = rank.world > 1 and statistics == "global", device.type == "cuda"
        self._shares, self.batches = shares, 1 if shares else rank.world
        self._own_groups = 1 if shares else max(1, groups // rank.world)
        if self._own_groups > 1 and isinstance(method, Siamese) and isinstance(method.choice.guide, nn.Module):
            raise ConfigError(
                f"batch_groups = {groups} with a guide that is a module: in each process it would remember its own "
                "images alone. Use batch_groups = 0, or a guide that is a function."
            )
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
        self, views: tuple[Tensor, ...], generator: Generator, context: Callable[[], AbstractContextManager[object]],
        rows: Sequence[int] = (), seed_of: Callable[[int], int] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Add the gradients of a step's loss -> (the loss, without gradient; diagnostics).

        Args:
            views: the views of one's own images and, where the method takes any, their local views.
            generator: decides partners and coins.
            context: makes the context of a forward pass.
            rows: where the images stand in the batch of all processes; needed where a process has several groups.
            seed_of: from a process's number to the seed by which it draws in this step; None: nothing is seeded.

        Raises:
            DataError: fewer than two images in a group.
        """
        total, found, groups = torch.zeros((), device=views[0].device), [], self._grouped(views, rows)
        for place, group in enumerate(groups):
            process = self._rank.index + place * self._rank.world
            if seed_of is not None:
                # Whatever draws inside the network, such as dropout, draws something else in each process.
                torch.manual_seed(seed_of(process))
                generator.manual_seed(seed_of(0 if self._shares else process))
            # The running statistics that are kept are those of the first process's images.
            with nullcontext() if place == 0 else statistics_kept(self._method):
                loss, diagnostics = self._add_gradients(
                    group, generator, context, share=1 / len(groups), is_last=place == len(groups) - 1
                )
            total = total + loss / len(groups)
            found.append(diagnostics)
        return total, {name: torch.stack([one[name].float() for one in found]).mean(dim=0) for name in found[0]}

    def _grouped(self, views: tuple[Tensor, ...], rows: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """The views of each of one's own groups: group `k` of `n` has the rows that process `k` of `n` would have."""
        if self._own_groups == 1:
            return [views]
        num, groups = self._own_groups * self._rank.world, []
        for first in range(self._rank.index, num, self._rank.world):
            own = torch.tensor([place for place, row in enumerate(rows) if row % num == first], dtype=torch.int64)
            if len(own) < 2:
                raise DataError(
                    f"only {len(own)} of the images of a group can be read (batch_groups = {num}). Remove unreadable "
                    "ones, or use a larger batch.",
                    topic="unreadable-images",
                )
            own = sent(own, views[0].device)
            # As the loader lays them out: channels last.
            by_pixel = (kind.permute(0, 1, 3, 4, 2).index_select(1, own) for kind in views)
            groups.append(tuple(kind.permute(0, 1, 4, 2, 3) for kind in by_pixel))
        return groups

    def _add_gradients(
        self, views: tuple[Tensor, ...], generator: Generator, context: Callable[[], AbstractContextManager[object]], *,
        share: float, is_last: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """As `backward`, of one group, times `share`; `is_last` where no other follows in this step."""
        if self.accumulate == 1:
            with self._sending(is_last):
                with context():
                    loss, diagnostics = self.wrapped(views[0], generator, *views[1:])
                (loss * share).backward()
            return loss.detach(), diagnostics
        assert isinstance(self._method, Siamese)
        parts = list(zip(*(kind.tensor_split(self.accumulate, dim=1) for kind in views), strict=True))
        with context():
            chosen, diagnostics = self._method.choose_ahead([part[0] for part in parts], generator)
        total = torch.zeros((), device=views[0].device)
        for part, *given in zip(parts, *(rows.tensor_split(self.accumulate) for rows in chosen), strict=True):
            with self._sending(is_last and part is parts[-1]):
                with context():
                    loss, _ = self.wrapped(part[0], generator, *part[1:], given=tuple(given))
                loss = loss * (part[0].shape[1] / views[0].shape[1])
                (loss * share).backward()
            total = total + loss.detach()
        return total, diagnostics

    def _sending(self, is_last: bool) -> AbstractContextManager[object]:
        """DistributedDataParallel sends gradients once, with the last backward pass of a step."""
        wrapped = self.wrapped
        sends = is_last or not isinstance(wrapped, nn.parallel.DistributedDataParallel)
        return nullcontext() if sends else wrapped.no_sync()  # type: ignore[operator]
