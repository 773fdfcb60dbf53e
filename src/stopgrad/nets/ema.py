"""The target encoder of BYOL: an exponential moving average (EMA) of the online one."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def cast_once(module: nn.Module) -> Iterator[None]:
    """Within, autocast casts frozen weights once and not in every pass, as it does for those that take gradients.

    For passes without gradient; what was cast is forgotten at the end.
    """
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        # Weights cast here carry no gradient; up to torch 2.9 autocast would use them again in the pass that needs it
        # (pytorch issue 112583).
        torch.clear_autocast_cache()
