"""Normalisation layers: which passes update BatchNorm's running statistics, and what can replace it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d, GroupNormAct, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Exchange = Callable[[Tensor], Tensor]
"""From a process's tensor to everybody's, `[process, ...]`."""
GROUPS = 32
"""Wu and He (arXiv 1803.08494): 32 groups."""


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within, forward passes normalise by their batch as ever and leave the running statistics alone."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.training]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def freeze_norms(module: nn.Module) -> None:
    """Put the BatchNorms inside into eval mode: they normalise by their running statistics, which stay as they are.

    Scales and shifts are trained on. `train()` undoes it.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.eval()


def has_batchnorm(module: nn.Module) -> bool:
    """Whether any layer normalises by statistics of the batch."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())


def synchronise(module: nn.Module) -> None:
    """Turn the BatchNorms inside into ones over all processes' images; timm's that carry an activation keep it."""
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batchnorm(child))


class SharedBatchNorm(_BatchNorm):
    """A BatchNorm over the images of all processes of a CPU, for which torch's SyncBatchNorm has no kernels.

    One exchange in the forward pass, of means and variances, and one in the backward pass, of the sums that each
    process's gradient needs. A process may have other numbers of images than another, or none.

    Args:
        norm: the layer whose place it takes; weights and running statistics are its own.
        exchange: brings the processes' numbers together.
    """

    def __init__(self, norm: _BatchNorm, exchange: Exchange) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        # timm's carry dropout and an activation.
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())
        self.exchange = exchange
        self.train(norm.training)

    # Compiled code cannot wait for another process.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Tensor) -> Tensor:
        """As torch's BatchNorm: `[image, channel, ...]` normalised by batch, or in eval mode by running statistics."""
        normalised = self._by_batch(input) if self.training else super().forward(input)
        out: Tensor = self.act(self.drop(normalised))
        return out

    def _by_batch(self, input: Tensor) -> Tensor:
        mean, var, count = _statistics(input.detach(), self.exchange)
        if count < 2:
            raise ValueError("BatchNorm of one value a channel: a batch needs more.")
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var), momentum)
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        out: Tensor = _Normalise.apply(input, weight, bias, mean, var, count, self.eps, self.exchange)
        return out

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""


def share_statistics(module: nn.Module, exchange: Exchange) -> None:
    """Turn the BatchNorms inside into ones over all processes' images, as `synchronise` does on GPUs."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, SharedBatchNorm(child, exchange))
        else:
            share_statistics(child, exchange)


def _statistics(images: Tensor, exchange: Exchange) -> tuple[Tensor, Tensor, float]:
    """Mean and variance of each channel over all processes' images, in float32 at least, and the number of values."""
    channels = images.shape[1]
    own = images.new_zeros((2 * channels + 1,), dtype=torch.promote_types(images.dtype, torch.float32))
    if images.numel():
        # The running statistics are given for their type alone: it decides that of the results.
        unused = own[:channels].clone(), own[:channels].clone()
        own[:channels], own[channels:-1] = torch.batch_norm_update_stats(images, *unused, 0.0)
        own[-1] = images.numel() // channels
    means, variances, counts = exchange(own).split([channels, channels, 1], dim=1)
    count = counts.sum()
    mean = (counts * means).sum(dim=0) / count
    var = (counts * (variances + (means - mean).square())).sum(dim=0) / count
    return mean, var, float(count)


class _Normalise(torch.autograd.Function):
    """torch's kernels in eval mode, which take mean and variance as given, and what is missing from their gradient."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, count: float, eps: float,
        exchange: Exchange,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(images, weight, mean, var)
        ctx.count, ctx.eps, ctx.exchange = count, eps, exchange
        return _scaled(images, weight, bias, mean, var, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, var = ctx.saved_tensors
        of_images, of_weight, of_bias = torch.empty_like(images), torch.zeros_like(mean), torch.zeros_like(mean)
        if images.numel():
            of_images, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, images, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
            )
        sums = ctx.exchange(torch.stack([of_weight, of_bias])).sum(dim=0) / ctx.count
        # Mean and variance depend on the images too.
        factor = weight / (var + ctx.eps).sqrt()
        of_images -= _scaled(images, sums[0] * factor, sums[1] * factor, mean, var, ctx.eps)
        return of_images, of_weight, of_bias, None, None, None, None, None


def _scaled(images: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """The images normalised by mean and variance, times weight plus bias."""
    if not images.numel():
        return torch.empty_like(images)
    out: Tensor = torch.native_batch_norm(images, weight, bias, mean, var, False, 0.0, eps)[0]
    return out


def to_group_norm(module: nn.Module) -> nn.Module:
    """Put GroupNorms in place of the BatchNorms inside, with their scales and shifts; returns the module.

    Of 32 groups, or as many as divide 32 and the channels.
    """
    if not isinstance(module, nn.BatchNorm2d):
        for name, child in module.named_children():
            setattr(module, name, to_group_norm(child))
        return module
    num, channels = math.gcd(GROUPS, module.num_features), module.num_features
    group = nn.GroupNorm(num, channels, eps=module.eps)
    if isinstance(module, BatchNormAct2d):
        group = GroupNormAct(channels, num_groups=num, eps=module.eps)
        group.act, group.drop = module.act, module.drop
    if module.affine:
        group.load_state_dict({"weight": module.weight, "bias": module.bias})
    return group
