"""Convolutions on a CPU whose gradients are in float32, as torch's own in bf16 are slow or wrong.

Slow: of depthwise convolutions, but for 3x3 ones of stride 1, they take 4 to 9 times as long as float32's (measured:
docs/performance.md). Wrong: of a strided 3x3 convolution whose input is a single pixel, the weight's gradient takes in
memory that was never written, and is now and then NaN (torch 2.14 with oneDNN on an Intel Xeon with AMX). The forward
passes are fast and right in either.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


class Float32Gradients(TorchFunctionMode):
    """Within, convolutions under CPU autocast whose bf16 gradients are slow or wrong take them in float32.

    The forward pass is autocast's own. The gradients are those of the bf16 operands, computed more exactly than torch
    does, and returned in the operands' types.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # fmt: skip
        if func is torch.conv2d and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            call = _Call(*args, **(kwargs or {}))
            if call.is_slow or call.is_wrong:
                return call.run()
        return func(*args, **(kwargs or {}))


class _Call:
    """The arguments of torch.conv2d."""

    def __init__(
        self, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Pair = 1,
        padding: int | Pair | str = 0, dilation: int | Pair = 1, groups: int = 1,
    ) -> None:  # fmt: skip
        self.input, self.weight, self.bias, self.groups = input, weight, bias, groups
        self.stride, self.dilation = _pair(stride), _pair(dilation)
        self.padding = None if isinstance(padding, str) else _pair(padding)

    @property
    def is_slow(self) -> bool:
        """Whether it is a depthwise convolution whose gradients are slow in bf16."""
        depthwise = self.groups > 1 and self.input.ndim == 4 and self.input.shape[1] == self.groups
        plain = tuple(self.weight.shape[2:]) == (3, 3) and self.stride == (1, 1) and self.dilation == (1, 1)
        return depthwise and self.weight.shape[1] == 1 and self.padding is not None and not plain

    @property
    def is_wrong(self) -> bool:
        """Whether it is a strided convolution of a single pixel, of which most of the kernel sees padding alone."""
        single = self.input.ndim == 4 and tuple(self.input.shape[2:]) == (1, 1)
        return single and max(self.weight.shape[2:]) > 1 and max(self.stride) > 1 and self.padding is not None

    def run(self) -> Tensor:
        """The convolution."""
        bf16 = torch.get_autocast_dtype("cpu")
        operands = [None if t is None else t.to(bf16) for t in (self.input, self.weight, self.bias)]
        result: Tensor = _Convolution.apply(*operands, self.stride, self.padding, self.dilation, self.groups)
        return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair,
        groups: int,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(input, weight)
        ctx.how = list(stride), list(padding), list(dilation), False, [0, 0], groups
        with torch.autocast("cpu", enabled=False):
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        needed = list(ctx.needs_input_grad[:3])
        found = torch.ops.aten.convolution_backward(
            gradient.float(), input.float(), weight.float(), [weight.shape[0]] if needed[2] else None, *ctx.how, needed
        )
        return *(None if g is None else g.to(input.dtype) for g in found), None, None, None, None


def _pair(value: int | Sequence[int]) -> Pair:
    first, second = (value, value) if isinstance(value, int) else (value[0], value[-1])
    return first, second
