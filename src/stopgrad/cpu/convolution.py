"""Convolutions on a CPU that torch's own kernels compute slowly, or wrongly, in bf16.

- Small images on CPUs with AMX: oneDNN multiplies one row of one image at a time, and a few pixels fill no tile. Laid
  side by side in wide images they take a half to a seventh of the time (measured: docs/performance.md). Not within
  torch.compile, which cannot follow it.
- Gradients of depthwise convolutions, but for 3x3 ones of stride 1, take 4 to 9 times as long as float32's (the same).
- Of a strided 3x3 convolution whose input is a single pixel, the weight's gradient takes in memory that was never
  written, and is now and then NaN (torch 2.14 with oneDNN on an Intel Xeon with AMX).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]
# Beyond these, torch's own are as fast: pixels a side, channels, and channels of a pass without gradients.
_SMALL, _MANY, _VERY_MANY = 8, 128, 512
# Pixels of a wide image's row, and images that are worth the copying.
_WIDTH, LEAST = 192, 4


class ConvolutionCall:
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

    @property
    def is_small(self) -> bool:
        """Whether it is an ordinary 3x3 convolution of small images with many channels."""
        many = _MANY if torch.is_grad_enabled() else _VERY_MANY
        usual = self.groups == 1 and self.dilation == (1, 1) and self.stride in ((1, 1), (2, 2))
        kernel = tuple(self.weight.shape[2:]) == (3, 3) and self.padding == (1, 1) and self.weight.shape[0] >= many
        return usual and kernel and self.input.ndim == 4 and 1 < self.input.shape[3] <= _SMALL

    @cached_property
    def period(self) -> int:
        """From an image's first column to its neighbour's: at least one of padding, and a multiple of the stride."""
        step = self.stride[1]
        return -(-(self.input.shape[3] + 1) // step) * step

    @cached_property
    def abreast(self) -> int:
        """How many images lie side by side: the most that divide the batch and fill no more than a row."""
        num = self.input.shape[0]
        return next((n for n in range(min(num, _WIDTH // self.period), 0, -1) if num % n == 0), 0)

    def side_by_side(self) -> Tensor:
        """The convolution of wide images, each of several with columns of zeros between them."""
        num, channels, height, width = self.input.shape
        abreast, period = self.abreast, self.period
        padded = F.pad(self.input.permute(0, 2, 3, 1), (0, 0, 0, period - width))
        rows = padded.view(num // abreast, abreast, height, period, channels).transpose(1, 2)
        wide = rows.reshape(num // abreast, height, abreast * period, channels).permute(0, 3, 1, 2)
        found = F.conv2d(wide, self.weight, self.bias, self.stride, 1).permute(0, 2, 3, 1)
        out_width = (width - 1) // self.stride[1] + 1
        parts = found.view(num // abreast, found.shape[1], abreast, period // self.stride[1], -1)[:, :, :, :out_width]
        return parts.transpose(1, 2).reshape(num, found.shape[1], out_width, -1).permute(0, 3, 1, 2)

    def with_gradients_in_float32(self) -> Tensor:
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
