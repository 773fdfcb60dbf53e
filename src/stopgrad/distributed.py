"""Several processes, one device each. The only reader of RANK, WORLD_SIZE and their kind."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Rank:
    """Which of how many processes this is."""

    index: int = 0
    world: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.index == 0


def current_rank() -> Rank:
    """As torchrun (or our own launcher) set it; a single process where nobody did."""
    env = os.environ
    return Rank(int(env.get("RANK", 0)), int(env.get("WORLD_SIZE", 1)), int(env.get("LOCAL_RANK", 0)))


def rank_variables(index: int, world: int, port: int) -> dict[str, str]:
    """What `current_rank` reads, for a process of this machine."""
    return {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port)}  # fmt: skip


@contextmanager
def joined(rank: Rank, device: torch.device) -> Iterator[None]:
    """Within, this process has joined the others, if there are any and the caller has not joined them already."""
    joins = rank.world > 1 and not dist.is_initialized()
    if joins:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        # As long as the first process may measure at the end while the others wait.
        dist.init_process_group(backend, timeout=timedelta(days=1))
    try:
        yield
    finally:
        if joins:
            dist.destroy_process_group()


def any_of(flag: bool, rank: Rank) -> bool:
    """Whether the flag is set on any process; all of them get the same answer."""
    if rank.world == 1:
        return flag
    total = torch.tensor([int(flag)])
    dist.all_reduce(total)
    return bool(total.item())


def mean_of(value: Tensor, rank: Rank) -> Tensor:
    """Mean over processes."""
    if rank.world == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / rank.world


def wait_for_all(rank: Rank) -> None:
    """Return when every process has come here."""
    if rank.world > 1:
        dist.barrier()


class SharedGradients:
    """The gradients of a CPU's processes in one tensor each, averaged by one message a step.

    On CPUs this is faster than DistributedDataParallel, which sends several and all buffers besides (by 5%: ResNet of
    0.3 M parameters, two cores). BatchNorm's running statistics stay each process's own.

    Args:
        parameters: those that are trained; their `grad` becomes a part of the tensor.
        rank: which of how many processes this is.
    """

    def __init__(self, parameters: Iterable[Tensor], rank: Rank) -> None:
        self.rank = rank
        parameters = list(parameters)
        # Two more elements carry flags.
        self._flat = torch.zeros(sum(p.numel() for p in parameters) + 2)
        start = 0
        for parameter in parameters:
            dist.broadcast(parameter.detach(), src=0)
            part = self._flat[start : start + parameter.numel()]
            parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
            start += parameter.numel()

    def clear(self) -> None:
        """Set all gradients to zero."""
        self._flat.zero_()

    def average(self, first: bool, second: bool) -> tuple[bool, bool]:
        """Average the gradients over processes; whether any of them raised the first and the second flag."""
        self._flat[-2], self._flat[-1] = float(first), float(second)
        dist.all_reduce(self._flat)
        self._flat /= self.rank.world
        return bool(self._flat[-2] > 0), bool(self._flat[-1] > 0)
