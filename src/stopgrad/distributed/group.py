"""Communication between processes: messages and barriers."""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from stopgrad.distributed.rank import Rank
from stopgrad.distributed.rendezvous import meet
from stopgrad.distributed.watch import ALONE, WAITS, being, watched
from stopgrad.errors import LostProcessError, StopgradError

PATIENCE = timedelta(minutes=30)
"""The last resort: so long a message waits for another process, where nothing else (`watched`) has found it missing."""
HANG_SECONDS = 300.0
POLL_SECONDS = 0.05


def open_store() -> TCPStore:
    """Where processes of this machine find each other, for as long as it is referred to.

    The launching process holds it, as torchrun does: a port that one of them opens later could be taken by then.
    """
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@contextmanager
def joined(rank: Rank, device: torch.device, hang_seconds: float = HANG_SECONDS) -> Iterator[None]:
    """Within, this process has joined the others, if there are any and the caller has not joined them already.

    Args:
        rank: which of how many processes this is.
        device: where it computes.
        hang_seconds: so long may one give no sign of life, or keep the others waiting, until the run ends.

    Raises:
        ConfigError, LostProcessError: as `meet` does.
    """
    if rank.world == 1 or dist.is_initialized():
        yield
        return
    store, names = meet(rank)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with in_touch(rank):
        dist.init_process_group(backend, store=store, rank=rank.index, world_size=rank.world, timeout=PATIENCE)
    try:
        with watched(store.clone(), rank, names, hang_seconds):
            yield
    finally:
        dist.destroy_process_group()


def any_of(flag: bool, rank: Rank) -> bool:
    """Whether the flag is set on any process; all of them get the same answer."""
    return bool(mean_of(torch.tensor(float(flag)), rank) > 0)


def check_same(values: Mapping[str, Any], rank: Rank, error: type[StopgradError], way_out: str) -> None:
    """Raise `error`, on all processes, where one has another value than the first; it says which, and `way_out`."""
    everyones: list[Any] = [values] * rank.world
    if rank.world > 1:
        with in_touch(rank):
            dist.all_gather_object(everyones, dict(values))
    for index, theirs in enumerate(everyones):
        if differing := [name for name in values if theirs[name] != everyones[0][name]]:
            words = ", ".join(f"{name} = {theirs[name]!r} there, {everyones[0][name]!r} here" for name in differing)
            raise error(f"process {index} of {rank.world} does not agree with process 0: {words}. {way_out}")


def mean_of(value: Tensor, rank: Rank) -> Tensor:
    """Mean over processes."""
    if rank.world == 1:
        return value
    value = value.clone()
    with in_touch(rank):
        dist.all_reduce(value)
    return value / rank.world


def take_from_first(tensors: Iterable[Tensor], rank: Rank) -> None:
    """Overwrite tensors by those of the first process."""
    for tensor in tensors if rank.world > 1 else ():
        with in_touch(rank):
            dist.broadcast(tensor.detach(), src=0)


def wait_for_all(rank: Rank) -> None:
    """Return when every process has come here."""
    if rank.world > 1:
        with in_touch(rank):
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
    store, key = dist.distributed_c10d._get_default_store(), f"stopgrad {from_first(uuid.uuid4().hex, rank)}"
    try:
        with being(ALONE):
            yield
    except BaseException:
        if rank.leads:
            with suppress(RuntimeError):
                store.set(key, "failed")
        raise
    with in_touch(rank, state=ALONE):
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
def in_touch(rank: Rank, other: int | None = None, *, state: str = WAITS) -> Iterator[None]:
    """Say in words that another process did not answer, and which where that is known."""
    try:
        with being(state):
            yield
    except (RuntimeError, OSError) as error:  # torch.distributed's and the sockets'
        which = "" if other is None else f": process {other}"
        raise LostProcessError(
            f"another of the training processes has ended, or has not answered for {PATIENCE.total_seconds() / 60:g} "
            f"minutes{which} (says process {rank.index} of {rank.world}: {error or 'closed'})."
        ) from error


def from_first(value: Any, rank: Rank) -> Any:
    """The first process's value."""
    box = [value]
    with in_touch(rank):
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]
