"""Layers that draw at random while training: dropout and stochastic depth."""

from collections.abc import Iterator
from contextlib import contextmanager

from timm.layers.drop import DropPath
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def silence(module: nn.Module) -> None:
    """Put such layers inside into eval mode, so that they pass everything on; `train()` undoes it."""
    for part in _drawing(module):
        part.eval()


@contextmanager
def silenced(module: nn.Module) -> Iterator[None]:
    """Within, such layers inside pass everything on."""
    parts = [part for part in _drawing(module) if part.training]
    for part in parts:
        part.eval()
    try:
        yield
    finally:
        for part in parts:
            part.train()


def _drawing(module: nn.Module) -> Iterator[nn.Module]:
    # torchvision's StochasticDepth is known by its name: torchvision need not be there.
    for part in module.modules():
        if isinstance(part, (_DropoutNd, DropPath)) or type(part).__name__ == "StochasticDepth":
            yield part
