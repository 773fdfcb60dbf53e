"""LARS: SGD whose learning rate is scaled, tensor by tensor, to the size of the weights."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer


class Lars(Optimizer):
    """Layer-wise adaptive rate scaling.

    A tensor w with gradient g moves by its velocity, v <- momentum v + lr trust |w| / (|g| + weight_decay |w|) (g +
    weight_decay w). Where |w| or |g| is 0 the ratio is 1, without which zero weights would never move. A group with
    `adapt` false has trust |w| / (...) = 1: plain SGD.

    Args:
        params: as of any optimizer; a group may have its own `lr`, and `adapt`.
        lr: the global rate, above 0.
        momentum: of the velocity, below 1.
        weight_decay: at least 0.
        trust: the paper's eta.

    Source: You, Gitman and Ginsburg (arXiv 1708.03888), algorithm 1; for linear evaluation with trust 0.001 as in
    SimSiam (arXiv 2011.10566, appendix A).
    """

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 0.001
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every tensor that has a gradient; no closure is called."""
        assert closure is None
        for group in self.param_groups:
            decay = group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["velocity"] = torch.zeros_like(weight)
                step = weight.grad + decay * weight
                if group["adapt"]:
                    size, slope = weight.norm(), weight.grad.norm()
                    rate = group["trust"] * size / (slope + decay * size)
                    # Chosen on the device, which nobody waits for.
                    step = step * torch.where((size > 0) & (slope > 0), rate, torch.ones_like(rate))
                velocity: Tensor = state["velocity"]
                velocity.mul_(group["momentum"]).add_(step, alpha=group["lr"])
                weight.sub_(velocity)
