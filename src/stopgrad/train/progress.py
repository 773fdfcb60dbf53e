"""How far a run is, and the loss since the last line of its log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

PHASES = ("loading", "augmentation", "network", "monitoring")


@dataclass
class Progress:
    """How far a run is; all of it is in the checkpoint."""

    step: int = 0
    """Steps taken."""
    images_seen: int = 0
    seconds: float = 0.0
    """Time in the loop, monitors included, over all sittings."""
    loss_sum: float = 0.0
    loss_count: int = 0
    """Since the last line of the log."""
    start: dict[str, float] = field(default_factory=dict)
    """The monitor's measurements before the first step."""
    best_step: int = 0
    """The step of the best encoder so far, which is kept; 0 for the start."""
    best_score: float = 0.0
    time_spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    """Seconds by phase."""

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Progress":
        """As a checkpoint has it; version 0.1 called the start "untrained"."""
        return cls(**{"start" if name == "untrained" else name: value for name, value in state.items()})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time within as that of a phase."""
        start = time.perf_counter()
        yield
        elapsed = time.perf_counter() - start
        self.time_spent[name] += elapsed
        self.seconds += elapsed

    @property
    def working_seconds(self) -> float:
        """Time in the loop without the monitors."""
        return self.seconds - self.time_spent["monitoring"]


class LossWindow:
    """The losses since the last line of the log, added up on the device, so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        # float64 adds float32 losses exactly, so that it does not matter where a window was interrupted.
        self._sum = torch.zeros((), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)
        self._first_bad = torch.full((), -1, device=device, dtype=torch.int64)

    def add(self, loss: Tensor, step: int) -> None:
        """Add the loss of a step."""
        self._sum += loss
        self._first_bad = torch.where((self._first_bad < 0) & ~loss.isfinite(), step, self._first_bad)

    @property
    def first_bad(self) -> int:
        """The first step whose loss was not finite, or -1; waits for the device."""
        return int(self._first_bad)

    def take(self) -> Tensor:
        """The sum, on the CPU; it begins anew."""
        total = self._sum.cpu().clone()
        self._sum.zero_()
        return total
