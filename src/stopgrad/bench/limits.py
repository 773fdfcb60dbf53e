"""What the machine can do at most: the rate of its largest matrix product and of a large copy."""

from typing import Any

import torch

from stopgrad.bench.clock import seconds_a_call
from stopgrad.bench.figures import Figure
from stopgrad.hardware import choose_device, choose_precision

SIDES = (1024, 2048, 4096)
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
        rates = [_product(side, dtype, device, seconds / len(SIDES)) for side in SIDES]
        found.append(Figure(f"largest matrix product, {name}", "GFLOP/s", max(rates)))
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    took = seconds_a_call(lambda: _finish(target.copy_(source)), seconds)
    return [*found, Figure("large copy", "GB/s", COPY_BYTES / took / 1e9)]


def _product(side: int, dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    left = torch.randn((side, side), device=device).to(dtype)
    right = torch.randn((side, side), device=device).to(dtype)
    return 2 * side**3 / seconds_a_call(lambda: _finish(left @ right), seconds, min_calls=1) / 1e9


def _finish(result: torch.Tensor) -> None:
    if result.device.type == "cuda":
        torch.cuda.synchronize(result.device)
