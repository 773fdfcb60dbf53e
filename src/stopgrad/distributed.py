"""Several processes, one device each. The only reader of RANK, WORLD_SIZE and their kind."""

import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from stopgrad.errors import LostProcessError

PATIENCE = timedelta(minutes=30)
"""So long a process waits for another that is at the same step. What the first does alone may take longer."""
POLL_SECONDS = 0.05
LOOPBACKS = ("lo", "lo0")


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


def open_store() -> TCPStore:
    """Where processes of this machine find each other, for as long as it is referred to.

    Whoever launches them holds it, as torchrun does: a port that one of them opens later could be taken by then.
    """
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def rank_variables(index: int, world: int, port: int) -> dict[str, str]:
    """What `current_rank` and torch read, for a process of this machine."""
    variables = {
        "RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    # By default gloo talks over whatever address the machine's name resolves to, which may not be reachable.
    loopback = [name for _, name in socket.if_nameindex() if name in LOOPBACKS]
    if loopback and "GLOO_SOCKET_IFNAME" not in os.environ:
        variables["GLOO_SOCKET_IFNAME"] = loopback[0]
    return variables


@contextmanager
def joined(rank: Rank, device: torch.device) -> Iterator[None]:
    """Within, this process has joined the others, if there are any and the caller has not joined them already."""
    joins = rank.world > 1 and not dist.is_initialized()
    if joins:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with _in_touch(rank):
            dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        if joins:
            dist.destroy_process_group()


def any_of(flag: bool, rank: Rank) -> bool:
    """Whether the flag is set on any process; all of them get the same answer."""
    return bool(mean_of(torch.tensor(float(flag)), rank) > 0)


def same_everywhere(values: Iterable[int], rank: Rank) -> bool:
    """Whether all processes have these numbers."""
    if rank.world == 1:
        return True
    mine = torch.tensor(list(values), dtype=torch.int64)
    most = torch.cat([mine, -mine])
    with _in_touch(rank):
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return torch.equal(most[: len(mine)], -most[len(mine) :])


def mean_of(value: Tensor, rank: Rank) -> Tensor:
    """Mean over processes."""
    if rank.world == 1:
        return value
    value = value.clone()
    with _in_touch(rank):
        dist.all_reduce(value)
    return value / rank.world


def wait_for_all(rank: Rank) -> None:
    """Return when every process has come here."""
    if rank.world > 1:
        with _in_touch(rank):
            dist.barrier()


@contextmanager
def others_wait(rank: Rank) -> Iterator[None]:
    """Work of the first process alone, however long: the others leave this context when the first does.

    They ask the store instead of waiting for a message, so that no time limit holds and signals are heard.

    Raises:
        LostProcessError: the first process failed.
    """
    if rank.world == 1:
        yield
        return
    store, key = dist.distributed_c10d._get_default_store(), f"stopgrad {_from_first(uuid.uuid4().hex, rank)}"
    try:
        yield
    except BaseException:
        if rank.leads:
            with suppress(RuntimeError):
                store.set(key, "failed")
        raise
    with _in_touch(rank):
        if rank.leads:
            store.set(key, "done")
        while not store.check([key]):
            time.sleep(POLL_SECONDS)
        failed = store.get(key) == b"failed"
    if failed:
        raise LostProcessError(f"training process 0 failed (says process {rank.index} of {rank.world}).")
    # Where the first process holds the store, it must not end before the others have asked.
    wait_for_all(rank)


@contextmanager
def _in_touch(rank: Rank, other: int | None = None) -> Iterator[None]:
    """Say in words that another process did not answer, and which where that is known."""
    try:
        yield
    except (RuntimeError, OSError) as error:  # torch.distributed's and the sockets'
        which = "" if other is None else f": process {other}"
        raise LostProcessError(
            f"another of the training processes has ended, or has not answered for {PATIENCE.total_seconds() / 60:g} "
            f"minutes{which} (says process {rank.index} of {rank.world}: {error or 'closed'})."
        ) from error


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
            with _in_touch(rank):
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
            with _in_touch(self.rank):
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
    name = _from_first(name, rank)
    shared: Tensor | None = None
    if name is not None:
        # Another machine has no such file.
        with suppress(RuntimeError):
            shared = torch.from_file(name, shared=True, size=size * rank.world).view(rank.world, size)
    misses = any_of(shared is None, rank)
    if rank.leads and name is not None:
        # The memory stays for as long as somebody has it mapped, and no longer.
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
        address = _from_first(None if server is None else server.getsockname(), rank)
        with _in_touch(rank):
            if server is None:
                self._others[0] = socket.create_connection(tuple(address))
                self._others[0].sendall(rank.index.to_bytes(4))
            else:
                server.settimeout(PATIENCE.total_seconds())
                while len(self._others) < rank.world - 1:
                    other = server.accept()[0]
                    self._others[int.from_bytes(other.recv(4))] = other
                server.close()
        for other in self._others.values():
            other.settimeout(PATIENCE.total_seconds())
            other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wait(self) -> None:
        """Return when every process has come here.

        Raises:
            LostProcessError: one of them has ended, or did not come in time.
        """
        for speaks in (not self._rank.leads, self._rank.leads):
            for index, other in self._others.items():
                with _in_touch(self._rank, index):
                    if speaks:
                        other.sendall(b".")
                    elif not other.recv(1):
                        raise ConnectionResetError


def _from_first(value: Any, rank: Rank) -> Any:
    """The first process's value."""
    box = [value]
    with _in_touch(rank):
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]
