"""The target encoder of BYOL: an exponential moving average (EMA) of the online one."""

import copy

import torch
from torch import nn


def ema_copy(online: nn.Module) -> nn.Module:
    """A copy that takes no gradient."""
    target = copy.deepcopy(online)
    for parameter in target.parameters():
        parameter.requires_grad_(False)
    return target


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """target <- momentum x target + (1 - momentum) x online, weights only.

    Buffers are left alone: the target keeps BatchNorm statistics of its own, as in the authors' code.
    """
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - momentum)
