"""Devices that are not there: what would be sent to one, and what the host would wait for."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stopgrad.methods.together import Together

META, CUDA = torch.device("meta"), torch.device("cuda", 0)
SENDS = {torch.ops.aten._to_copy.default: 0, torch.ops.aten.copy_.default: 1}


class Sent(TorchDispatchMode):
    """Notes every tensor of the host that goes to a device, and whether the host would wait for it to arrive."""

    def __init__(self, monkeypatch, device):
        super().__init__()
        self.kind, self.shapes, self.waits, self.indexed = device.type, [], [], []
        self._pinned = []  # kept, so that their identities are not used again
        monkeypatch.setattr("stopgrad.objective.device.COPIES_ASIDE", (device.type,))
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self._pin(tensor))

    def _pin(self, tensor):
        self._pinned.append(tensor.clone())
        return self._pinned[-1]

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        if operation in SENDS:
            source = args[SENDS[operation]]
            if source.device.type == "cpu" and result.device.type == self.kind:
                self.shapes.append(tuple(source.shape))
                if not (kwargs.get("non_blocking") and any(source is pinned for pinned in self._pinned)):
                    self.waits.append(tuple(source.shape))
        if operation is torch.ops.aten.index_put_.default and args[2].ndim == 0:
            # On CUDA alone torch makes the number a tensor of the host first, and waits for it to arrive.
            self.waits.append(tuple(args[0].shape))
        if operation is torch.ops.aten.index.Tensor:
            self.indexed.append(args[0].dtype)
        return result


def pretend_cuda(monkeypatch, *, devices=2, capability=(8, 0), free=10**9):
    """As torch.cuda would answer on a machine with such GPUs."""
    pretend_memory(monkeypatch, free)
    for name, value in {
        "is_available": lambda: True, "device_count": lambda: devices, "current_device": lambda: 0,
        "get_device_capability": lambda device=None: capability,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)


def pretend_small_memory(monkeypatch, images):
    """A device that has no memory to train on more images at once; returns the numbers that were tried."""
    tried, backward = [], Together.backward

    def limited(together, views, *arguments):
        tried.append(views[0].shape[1])
        if -(-views[0].shape[1] // together.accumulate) > images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return backward(together, views, *arguments)

    monkeypatch.setattr(Together, "backward", limited)
    return tried


def pretend_memory(monkeypatch, free):
    """The bytes that are free on a GPU. Fake tensors want one in earnest where CUDA is said to be available."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, 2 * free))
