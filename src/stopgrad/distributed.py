"""Several processes, one device each. The only reader of RANK, WORLD_SIZE and their kind."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stopgrad.errors import Interrupted, StopgradError


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


def launch(work: Callable[..., None], num_processes: int, *args: Any) -> None:
    """Run `work(*args)` in so many processes of this machine, each with its rank set, and wait for all.

    SIGINT and SIGTERM are handed on, so that every process saves and stops.

    Raises:
        StopgradError: what the first process to fail raised, as it is.
    """
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        context.Process(target=_work_as, args=(index, num_processes, port, errors, work, args))
        for index in range(num_processes)
    ]
    for process in processes:
        process.start()

    asked: list[int] = []

    def hand_on(number: int, _frame: object) -> None:
        asked.append(number)
        for process in processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _wait_for(processes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not errors.empty():
        raise errors.get()
    if asked and any(process.exitcode for process in processes):
        raise Interrupted(f"by {signal.Signals(asked[0]).name} before training began; resume starts over.")
    if any(process.exitcode for process in processes):
        codes = ", ".join(str(process.exitcode) for process in processes)
        raise StopgradError(f"a training process ended without a word (exit codes {codes}).")


def _wait_for(processes: list[Any]) -> None:
    """Until all have ended; when one fails the others are given a moment, then ended."""
    failed_at: float | None = None
    while any(process.is_alive() for process in processes):
        for process in processes:
            process.join(timeout=0.1)
        if failed_at is None and any(process.exitcode for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > 15:
            for process in processes:
                process.terminate()
            failed_at = time.monotonic()


def _work_as(index: int, world: int, port: int, errors: Any, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    try:
        work(*args)
    except StopgradError as error:
        errors.put(error)
        sys.exit(error.exit_code)
