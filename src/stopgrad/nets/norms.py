"""Normalisation layers: which passes update BatchNorm's running statistics, and what can replace it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from timm.layers.norm_act import BatchNormAct2d, GroupNormAct, convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

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
