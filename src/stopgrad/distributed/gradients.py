"""Gradients averaged over processes."""

import os
import socket
import tempfile
from collections.abc import Iterable
from contextlib import suppress

import torch
import torch.distributed as dist
from torch import Tensor

from stopgrad.distributed import group
from stopgrad.distributed.group import any_of, from_first, in_touch
from stopgrad.distributed.rank import Rank


class SharedGradients:
    """The gradients of a CPU's processes, each in one tensor, averaged in memory that all of them share.

    On CPUs this is faster than DistributedDataParallel, which sends several messages through the network stack and all
    buffers besides. Where there is no memory to share (processes of several machines, no room) the tensors are averaged
    by one message a step. BatchNorm's running statistics stay each process's own.

    Args:
        parameters: those that are trained; their `grad` becomes a part of the tensor.
        rank: which of how many processes this is.
    """

    def __init__(self, parameters: Iterable[Tensor], rank: Rank) -> None:
        self.rank = rank
        parameters = list(parameters)
        # Two more elements carry flags.
        size = sum(p.numel() for p in parameters) + 2
        self._everyones = _share_memory(size, rank)
        self._meeting = None if self._everyones is None else _Meeting(rank)
        self._mine = torch.zeros(size) if self._everyones is None else self._everyones[rank.index]
        start = 0
        for parameter in parameters:
            with in_touch(rank):
                dist.broadcast(parameter.detach(), src=0)
            part = self._mine[start : start + parameter.numel()]
            parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
            start += parameter.numel()

    def clear(self) -> None:
        """Set all gradients to zero."""
        self._mine.zero_()

    def average(self, first: bool, second: bool) -> tuple[bool, bool]:
        """Average the gradients over processes; whether any of them raised the first and the second flag."""
        self._mine[-2], self._mine[-1] = float(first), float(second)
        if self._everyones is None or self._meeting is None:
            with in_touch(self.rank):
                dist.all_reduce(self._mine)
            self._mine /= self.rank.world
        else:
            self._meeting.wait()
            # Each process averages its part of everybody's, in place and in the order of ranks.
            parts = [tensor.tensor_split(self.rank.world)[self.rank.index] for tensor in self._everyones]
            mean = parts[0].clone()
            for part in parts[1:]:
                mean += part
            mean /= self.rank.world
            for part in parts:
                part.copy_(mean)
            self._meeting.wait()
        return bool(self._mine[-2] > 0), bool(self._mine[-1] > 0)


def _share_memory(size: int, rank: Rank) -> Tensor | None:
    """Zeros `[process, size]` that all processes see, or None where that cannot be; all get the same answer."""
    name: str | None = None
    if rank.leads:
        with suppress(OSError):
            name = _reserve(4 * size * rank.world)
    name = from_first(name, rank)
    shared: Tensor | None = None
    if name is not None:
        # Another machine has no such file.
        with suppress(RuntimeError):
            shared = torch.from_file(name, shared=True, size=size * rank.world).view(rank.world, size)
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


class _Meeting:
    """A place where the processes of a machine wait for each other: some 0.1 ms, where a message of gloo takes 2."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._others: dict[int, socket.socket] = {}
        server = socket.create_server(("127.0.0.1", 0)) if rank.leads else None
        address = from_first(None if server is None else server.getsockname(), rank)
        with in_touch(rank):
            if server is None:
                self._others[0] = socket.create_connection(tuple(address))
                self._others[0].sendall(rank.index.to_bytes(4))
            else:
                server.settimeout(group.PATIENCE.total_seconds())
                while len(self._others) < rank.world - 1:
                    other = server.accept()[0]
                    self._others[int.from_bytes(other.recv(4))] = other
                server.close()
        for other in self._others.values():
            other.settimeout(group.PATIENCE.total_seconds())
            other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wait(self) -> None:
        """Return when every process has come here.

        Raises:
            LostProcessError: one of them has ended, or did not come in time.
        """
        for speaks in (not self._rank.leads, self._rank.leads):
            for index, other in self._others.items():
                with in_touch(self._rank, index):
                    if speaks:
                        other.sendall(b".")
                    elif not other.recv(1):
                        raise ConnectionResetError
