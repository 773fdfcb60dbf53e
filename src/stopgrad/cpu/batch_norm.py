"""BatchNorm of bf16 images in training, for torch.compile.

What torch compiles on CPUs finds mean and variance by Welford's algorithm, in which each pixel waits for the one before
it, and works out the scale of each channel anew at each pixel. Here sums and sums of squares are found in one pass, and
scales once (measured: docs/performance.md).
"""

from typing import Any

import torch
from torch import Tensor


class BatchNormCall:
    """The arguments of torch.nn.functional.batch_norm."""

    def __init__(
        self, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> None:  # fmt: skip
        self.input, self.weight, self.bias, self.training = input, weight, bias, training
        self.running_mean, self.running_var, self.momentum, self.eps = running_mean, running_var, momentum, eps

    @property
    def is_of_images(self) -> bool:
        """Whether it normalises bf16 images by their own statistics, and keeps running ones."""
        known = self.weight is not None and self.bias is not None and self.running_mean is not None
        images = self.input.ndim == 4 and self.input.dtype == torch.bfloat16 and self.input.device.type == "cpu"
        return self.training and known and images and self._count > 1

    @property
    def _count(self) -> int:
        return self.input.numel() // self.input.shape[1]

    def in_one_pass(self) -> Tensor:
        """The images normalised; running statistics are updated."""
        assert self.running_mean is not None
        assert self.running_var is not None
        num, channels, height, width = self.input.shape
        pixels = self.input.permute(0, 2, 3, 1).reshape(-1, channels)
        out, mean, var = _BatchNorm.apply(pixels, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (self._count / (self._count - 1)), self.momentum)
        normalised: Tensor = out.view(num, height, width, channels).permute(0, 3, 1, 2)
        return normalised


class _BatchNorm(torch.autograd.Function):
    """The pixels `[n, channel]` normalised; mean and biased variance of each channel, in float32."""

    @staticmethod
    def forward(
        ctx: Any, pixels: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        # Of differences to a pixel: squares of values far from zero would lose what is small.
        near = pixels[0].float()
        difference = pixels.float() - near
        first, second = difference.mean(0), difference.square().mean(0)
        mean, var = near + first, (second - first.square()).clamp_min(0)
        deviation = (var + eps).rsqrt()
        scale = _once(weight * deviation)
        shift = _once(bias - mean * scale)
        ctx.save_for_backward(pixels, mean, deviation, scale)
        ctx.mark_non_differentiable(mean, var)
        return (pixels.float() * scale + shift).to(pixels.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        pixels, mean, deviation, scale = ctx.saved_tensors
        values, of_out = pixels.float(), gradient.float()
        of_bias = of_out.sum(0)
        of_weight = (of_out * (values - mean)).sum(0) * deviation
        # The gradient of what a pixel contributes to the mean and to the variance is linear in the pixel.
        slope = _once(-scale * deviation * of_weight / len(pixels))
        level = _once(-scale * of_bias / len(pixels) - slope * mean)
        return (of_out * scale + values * slope + level).to(pixels.dtype), of_weight, of_bias, None


def _once(values: Tensor) -> Tensor:
    """The values as they are. A compiler stores what is looked at by strides, and does not work it out again."""
    return values.as_strided(values.shape, values.stride())
