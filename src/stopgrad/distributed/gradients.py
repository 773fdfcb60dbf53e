"""Gradients averaged over processes."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress

import torch
import torch.distributed as dist
from torch import Tensor

from stopgrad.distributed.group import any_of, from_first, in_touch, take_from_first
from stopgrad.distributed.meeting import Meeting
from stopgrad.distributed.rank import Rank


class SharedGradients:
    """The gradients of a CPU's processes, each in one tensor, averaged in memory that all of them share.

    On CPUs this is faster than DistributedDataParallel, which sends several messages through the network stack and all
    buffers besides. Where there is no memory to share (processes of several machines, no room) the tensors are averaged
    by one message a step.

    Args:
        parameters: those that are trained, of one type; their `grad` becomes a part of the tensor.
        rank: which of how many processes this is.
    """

    def __init__(self, parameters: Iterable[Tensor], rank: Rank) -> None:
        self.rank = rank
        parameters = list(parameters)
        # Two more elements carry flags.
        size = sum(p.numel() for p in parameters) + 2
        dtype = parameters[0].dtype
        self._everyones = _share_memory(size, dtype, rank)
        self.meeting = None if self._everyones is None else Meeting(rank)
        self._mine = torch.zeros(size, dtype=dtype) if self._everyones is None else self._everyones[rank.index]
        start = 0
        take_from_first(parameters, rank)
        for parameter in parameters:
            part = self._mine[start : start + parameter.numel()]
            parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
            start += parameter.numel()

    def clear(self) -> None:
        """Set all gradients to zero."""
        self._mine.zero_()

    def average(self, first: bool, second: bool) -> tuple[bool, bool]:
        """Average the gradients over processes; whether any of them raised the first and the second flag."""
        self._mine[-2], self._mine[-1] = float(first), float(second)
        if self._everyones is None or self.meeting is None:
            with in_touch(self.rank):
                dist.all_reduce(self._mine)
            self._mine /= self.rank.world
        else:
            self.meeting.wait()
            # Each process averages its part of everybody's, in place and in the order of ranks.
            parts = [tensor.tensor_split(self.rank.world)[self.rank.index] for tensor in self._everyones]
            mean = parts[0].clone()
            for part in parts[1:]:
                mean += part
            mean /= self.rank.world
            for part in parts:
                part.copy_(mean)
            self.meeting.wait()
        return bool(self._mine[-2] > 0), bool(self._mine[-1] > 0)


def _share_memory(size: int, dtype: torch.dtype, rank: Rank) -> Tensor | None:
    """Zeros `[process, size]` that all processes see, or None where that cannot be; all get the same answer."""
    name: str | None = None
    if rank.leads:
        with suppress(OSError):
            name = _reserve(dtype.itemsize * size * rank.world)
    name = from_first(name, rank)
    shared: Tensor | None = None
    if name is not None:
        # Another machine has no such file.
        with suppress(RuntimeError):
            shared = torch.from_file(name, shared=True, size=size * rank.world, dtype=dtype).view(rank.world, size)
    misses = any_of(shared is None, rank)
    if rank.leads and name is not None:
        # The memory lives exactly as long as a process has it mapped.
        os.unlink(name)
    return None if misses else shared


def _reserve(num_bytes: int) -> str:
    """A file of zeros in memory, or on disk where memory has no such place; its room is really there."""
    problem = OSError("no place for shared memory")
    for folder in ("/dev/shm", tempfile.gettempdir()):
        if not os.path.isdir(folder):
            continue
        handle, name = tempfile.mkstemp(prefix="stopgrad-", dir=folder)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, num_bytes)
            else:
                os.truncate(handle, num_bytes)
            return name
        except OSError as error:
            os.unlink(name)
            problem = error
        finally:
            os.close(handle)
    raise problem
