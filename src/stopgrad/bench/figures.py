"""What an arm of the benchmark hands back."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


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
