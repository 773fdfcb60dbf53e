"""BatchNorm's running statistics: which forward passes may move them."""

from collections.abc import Iterator
from contextlib import contextmanager

from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within, forward passes normalise by their batch as ever and leave the running statistics alone."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
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


def synchronise(module: nn.Module) -> None:
    """Turn the BatchNorms inside into ones over all processes' images; timm's that carry an activation keep it."""
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batchnorm(child))
