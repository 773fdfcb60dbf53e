"""Numbers drawn on the host, sent to where they are needed."""

import torch
from torch import Tensor

COPIES_ASIDE = ("cuda",)
"""Kinds of device that copy from pinned memory while the host goes on."""


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device; the host does not wait for what the device is doing.

    From ordinary memory a copy may wait for the device's queue, even one that is called non-blocking; from pinned
    memory it does not, and torch keeps that memory until the copy is done. Elsewhere than on CUDA such copies are not
    safe: on MPS they may read memory that was given back (pytorch issue 189690).
    """
    if device.type in COPIES_ASIDE and tensor.device.type == "cpu":
        return _copied_aside(tensor, device)
    return tensor.to(device)


# torch.compile knows no pinned memory.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _copied_aside(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True)
