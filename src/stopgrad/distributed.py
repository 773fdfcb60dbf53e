"""Several processes, one device each. The only reader of RANK, WORLD_SIZE and their kind."""

import os
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


def join(rank: Rank, device: torch.device) -> None:
    """Join the other processes, if there are any."""
    if rank.world > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=30))


def leave() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
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
