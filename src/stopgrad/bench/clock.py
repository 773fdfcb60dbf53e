"""Timing windows and peak memory."""

import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

MIN_STEPS = 2
_WARM_UP_SHARE = 0.3

T = TypeVar("T")


class Window:
    """The steps that count: those after a warm-up, until there are enough of them.

    Args:
        seconds: how long to measure; the warm-up takes three tenths of it more, and one step at least.
        min_steps: steps that are measured however long they take.
        device: whose queue is waited for at both ends of the window.
    """

    def __init__(self, seconds: float, *, min_steps: int = MIN_STEPS, device: torch.device | None = None) -> None:
        self.seconds, self.min_steps, self.device = seconds, min_steps, device
        self.num_steps = 0
        self.elapsed = 0.0
        self.started = self.done = False
        self._begun = time.perf_counter()
        self._start = 0.0

    def step(self) -> None:
        """Note that a step has ended."""
        if self.done:
            return
        if not self.started:
            if time.perf_counter() - self._begun >= _WARM_UP_SHARE * self.seconds:
                self._wait()
                self.started, self._start = True, time.perf_counter()
            return
        self.num_steps += 1
        if self.num_steps >= self.min_steps and time.perf_counter() - self._start >= self.seconds:
            self._wait()
            self.elapsed, self.done = time.perf_counter() - self._start, True

    def _wait(self) -> None:
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def seconds_a_call(work: Callable[[], object], seconds: float, *, min_calls: int = MIN_STEPS) -> float:
    """Mean time of a call, after a warm-up."""
    window = Window(seconds, min_steps=min_calls)
    while not window.done:
        work()
        window.step()
    return window.elapsed / window.num_steps


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


class PeakMemory:
    """Most memory held while entered, by this process and its children.

    This process's own peak is the system's exact figure. Of children, such as a loader's workers, the proportional
    share is looked at four times a second, in which pages they share with this process count once in all.
    """

    def __init__(self) -> None:
        self._children = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        """Peak of the process plus peak of the sum of its children."""
        return _own_peak() + self._children

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            self._children = max(self._children, sum(_proportional(child) for child in _children()))


def _own_peak() -> float:
    # Not ru_maxrss where there is better: it begins with what the parent held.
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _children() -> list[str]:
    pid = os.getpid()
    return " ".join(_lines(f"/proc/{pid}/task/{pid}/children")).split()


def _proportional(pid: str) -> float:
    return sum(int(line.split()[1]) / 1024 for line in _lines(f"/proc/{pid}/smaps_rollup") if line.startswith("Pss:"))


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readlines()
    except OSError:  # another system, or a child that has just ended
        return []


@dataclass(frozen=True)
class Figure:
    """One measured number, and what it costs the machine."""

    what: str
    unit: str
    value: float
    flops: float = 0.0
    """Floating-point operations a unit: its limit is the largest matrix product."""
    precision: str = "fp32"
    """Of those operations."""
    bytes: float = 0.0
    """Bytes written a unit: its limit is a large copy."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def flops_of(loss: Callable[[], Tensor]) -> float:
    """Operations of matrix products and convolutions in a forward and, where there is a gradient, a backward pass."""
    with FlopCounterMode(display=False) as counter:
        value = loss()
        if value.requires_grad:
            value.backward()
    return float(counter.get_total_flops())
