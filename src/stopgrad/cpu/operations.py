"""The context in which networks run in bf16 on a CPU."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from stopgrad.cpu.batch_norm import BatchNormCall
from stopgrad.cpu.convolution import LEAST, ConvolutionCall


class CpuOperations(TorchFunctionMode):
    """Within, convolutions and BatchNorms under CPU autocast are computed in the way that is fast and right.

    Their results are torch's, to the rounding of bf16; gradients that are computed in float32 are more exact, and are
    returned in the operands' types.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # fmt: skip
        if func is torch.conv2d and torch.is_autocast_enabled("cpu"):
            call = ConvolutionCall(*args, **(kwargs or {}))
            if torch.is_grad_enabled() and (call.is_slow or call.is_wrong):
                return call.with_gradients_in_float32()
            if not torch.compiler.is_compiling() and _has_amx() and call.is_small and call.abreast >= LEAST:
                return call.side_by_side()
        if func is F.batch_norm and torch.compiler.is_compiling():
            norm = BatchNormCall(*args, **(kwargs or {}))
            if norm.is_of_images:
                return norm.in_one_pass()
        return func(*args, **(kwargs or {}))


@cache
def _has_amx() -> bool:
    # Private, and the only way to ask torch; without it, its own kernels are used.
    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(asked is not None and asked())
