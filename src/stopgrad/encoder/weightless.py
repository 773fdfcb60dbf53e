"""Networks without numbers: built on torch's meta device, for the names and shapes of their weights alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Spaced(TorchFunctionMode):
    """`linspace` on the CPU: earlier releases of timm take stochastic depths from it as numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is torch.linspace:
            given = {"device": "cpu", **given}
        return func(*args, **given)


@contextmanager
def weightless() -> Iterator[None]:
    """What is built inside has shapes and no memory."""
    with torch.device("meta"), _Spaced():
        yield
