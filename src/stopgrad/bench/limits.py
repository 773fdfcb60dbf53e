"""Limits of the hardware: the rate of a large matrix product and of a large copy."""

from functools import partial
from typing import Any

import torch

from stopgrad.bench.clock import Figure, seconds_a_call
from stopgrad.hardware import choose_device, choose_precision

SIDES = (512, 1024, 2048, 4096)
COPY_BYTES = 256 * 2**20


def limits(request: dict[str, Any]) -> list[Figure]:
    """Matrix products in fp32, and in bf16 where this hardware computes in it, and a copy of 256 MB."""
    device = choose_device("auto")
    found = []
    dtypes = {"fp32": torch.float32}
    if choose_precision("auto", device) == "bf16":
        dtypes["bf16"] = torch.bfloat16
    seconds = request["seconds"] / 4
    for name, dtype in dtypes.items():
        found.append(Figure(f"largest matrix product, {name}", "GFLOP/s", _largest_product(dtype, device, seconds)))
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    took = seconds_a_call(lambda: _finish(target.copy_(source)), seconds)
    return [*found, Figure("large copy", "GB/s", COPY_BYTES / took / 1e9)]


def _largest_product(dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    """The best rate of square products, of sides as long as the time allows."""
    best = 0.0
    for side in SIDES:
        operations = 2e-9 * side**3
        if best and operations / best > seconds:
            break
        left, right = (torch.randn((side, side), device=device).to(dtype) for _ in range(2))
        took = seconds_a_call(partial(_multiply, left, right), seconds / len(SIDES), min_calls=1)
        best = max(best, operations / took)
    return best


def _multiply(left: torch.Tensor, right: torch.Tensor) -> None:
    _finish(left @ right)


def _finish(result: torch.Tensor) -> None:
    if result.device.type == "cuda":
        torch.cuda.synchronize(result.device)
