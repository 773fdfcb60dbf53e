"""Hardware: device, precision and memory layout."""

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch

from stopgrad.cpu.operations import CpuOperations
from stopgrad.errors import ConfigError, did_you_mean

PRECISIONS = ("auto", "fp32", "bf16")
# The largest block that moves glibc's thresholds, on 64-bit systems.
_LARGEST_THRESHOLD = 32 * 2**20


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a setting; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: no such device, or it is not available.
    """
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise ConfigError(f"device = {name!r} is unknown: {did_you_mean(kind, ('auto', 'cpu', 'cuda', 'mps'))}")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "cuda":
        index = int(number) if number else local_rank
        if not torch.cuda.is_available():
            raise ConfigError(
                f"device = {name!r} is not available: torch {torch.__version__} sees no CUDA device; use cpu or auto.",
                topic="no-gpu",
            )
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"device cuda:{index} is not available: this machine has {torch.cuda.device_count()}.", topic="no-gpu"
            )
        return torch.device("cuda", index)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device = 'mps' is not available; use cpu or auto.", topic="no-gpu")
    return torch.device(kind)


def choose_processes(devices: int, device: torch.device, batch_size: int, groups: int = 0) -> int:
    """How many processes train; for `devices = 0`, one, but two on a CPU with two cores and a batch of 128 or more.

    Two processes of a small network, each with its half of the cores, outrun one whose threads split every operation
    (1.5 times on two cores, ResNet of 0.3 M parameters, 32 px). More were not measured. Two train a batch in `groups`
    only where these divide among them.
    """
    if devices:
        return devices
    divides = batch_size % 2 == groups % 2 == 0
    return 2 if device.type == "cpu" and usable_cores() >= 2 and batch_size >= 128 and divides else 1


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(num_processes: int) -> None:
    """Let torch use this process's share of the cores."""
    torch.set_num_threads(max(1, usable_cores() // num_processes))


@cache
def keep_freed_memory() -> None:
    """Let the memory of one forward pass be used again by the next, on Linux with glibc; elsewhere nothing happens.

    By default glibc gives most of it back to the system, which hands out the same pages anew, zeroed: a fifth of the
    time of a network on a CPU. Freeing one large block makes it keep up to 64 MB a thread, as its dynamic thresholds
    follow the blocks that are freed (mallopt(3), M_MMAP_THRESHOLD).
    """
    torch.empty(_LARGEST_THRESHOLD - 2**16, dtype=torch.uint8)


@contextmanager
def undivided_operations() -> Iterator[None]:
    """Within, torch computes each operation in the thread that asks for it: for threads that have a batch each.

    On a CPU they outrun operations that are split among the cores, and wait for nobody. It holds for the thread that
    enters and for those that are started within.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def plain_batch_size(device: torch.device, image_size: int) -> int:
    """Images a forward pass where nothing but speed depends on it: on a CPU, as many as its caches hold.

    Elsewhere 512, and of images of more than 224 pixels as many as take the same memory.
    """
    if device.type == "cpu":
        return max(4, 64 * 32**2 // image_size**2)
    return max(1, min(512, 512 * 224**2 // image_size**2))


def check_precision(name: str) -> None:
    """Raise `ConfigError` for a precision that there is not."""
    if name not in PRECISIONS:
        raise ConfigError(f"precision = {name!r} is unknown: {did_you_mean(name, PRECISIONS)}")


def choose_statistics(name: str, device: torch.device, groups: int = 0) -> str:
    """`global` or `local`; `auto` takes `local` for a batch in `groups`.

    It does on a CPU too, where that measured better per second (docs/reliability.md).
    """
    return name if name != "auto" else "local" if device.type == "cpu" or groups > 1 else "global"


def choose_precision(name: str, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` takes bf16 where the hardware computes in it.

    Raises:
        ConfigError: no such precision.
    """
    check_precision(name)
    if name != "auto":
        return name
    if device.type == "cuda":
        # Compute capability 8.0 (Ampere) brought bf16 arithmetic; before, torch emulates it slowly.
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "cpu":
        return "bf16" if cpu_computes_bf16() else "fp32"
    return "fp32"


def cpu_computes_bf16() -> bool:
    """Whether this CPU multiplies bf16 natively (AVX-512 BF16 or AMX)."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def compile_problem(device: torch.device) -> str | None:
    """Why torch.compile does not work here, such as for want of a C++ compiler; None if it does."""
    try:
        torch.compile(lambda x: (x * 2).relu().sum())(torch.ones(64, device=device))
    # It raises errors of many kinds, some of its own making.
    except Exception as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context that a forward pass runs in."""
    if precision == "fp32":
        return nullcontext()
    return _cpu_autocast() if device.type == "cpu" else torch.autocast(device.type, dtype=torch.bfloat16)


@contextmanager
def _cpu_autocast() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16), CpuOperations():
        yield
