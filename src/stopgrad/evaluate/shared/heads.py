"""Several linear classifiers trained at once on the same features."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.optim.lars import Lars
from torch import Tensor

MOMENTUM = 0.9
_INITIAL_STD = 0.01
# Of the logits of all heads for the images that are judged at once.
BLOCK_BYTES = 64 * 2**20


class LinearHeads:
    """Linear classifiers that begin alike and learn from the same features, each at its own learning rate.

    Args:
        dim: of the features.
        num_classes: at least 2.
        rates: the peak learning rate of each head.
        optimizer: "sgd", with momentum 0.9 and without Nesterov's; or "lars" (arXiv 1708.03888).
        weight_decay: on weights and biases.
        seed: of the initial weights: normal with standard deviation 0.01, biases 0.
        device: where the features are.
    """

    def __init__(
        self, dim: int, num_classes: int, rates: Sequence[float], *, optimizer: str, weight_decay: float, seed: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        initial = torch.randn((num_classes, dim), generator=torch.Generator().manual_seed(seed)) * _INITIAL_STD
        initial = torch.cat([initial, torch.zeros(num_classes, 1)], dim=1)
        # `[class, dim + 1]`, the biases last: one tensor, because LARS has one rate for a layer, and biases that begin
        # at 0 have no size of their own to scale it by.
        self.layers = [initial.to(device, copy=True).requires_grad_() for _ in rates]
        groups = [{"params": [layer], "lr": rate, "peak": rate} for layer, rate in zip(self.layers, rates, strict=True)]
        self.optimizer: torch.optim.Optimizer = (
            Lars(groups, lr=1.0, momentum=MOMENTUM, weight_decay=weight_decay, always_adapt=True) if optimizer == "lars"
            else torch.optim.SGD(groups, lr=1.0, momentum=MOMENTUM, weight_decay=weight_decay)
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.layers)

    def logits(self, features: Float[Tensor, "image dim"]) -> Float[Tensor, "image head num_classes"]:
        """What every head says of every image."""
        layers = torch.cat(self.layers)
        return F.linear(features, layers[:, :-1], layers[:, -1]).unflatten(1, (len(self), -1))

    def losses(self, features: Float[Tensor, "image dim"], labels: Int[Tensor, "image"]) -> Float[Tensor, "image head"]:
        """Cross-entropy of every image by every head."""
        return F.cross_entropy(
            self.logits(features).flatten(0, 1), labels.repeat_interleave(len(self)), reduction="none"
        ).unflatten(0, (-1, len(self)))

    def step(
        self, features: Float[Tensor, "image dim"], labels: Int[Tensor, "image"], shown: Bool[Tensor, "image head"],
        factor: float,
    ) -> Float[Tensor, "head"]:  # fmt: skip
        """One optimizer step of every head.

        Args:
            features, labels: of a batch.
            shown: which head learns from which image.
            factor: the learning rates as a share of their peaks.

        Returns:
            The heads' losses, each the mean over its images.
        """
        losses = self.losses(features, labels)
        # Weights of 0 would let a diverged head's infinite loss through as NaN.
        means = torch.where(shown, losses, 0).sum(dim=0) / shown.sum(dim=0).clamp(min=1)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        # Heads share no weights, so that each has the gradient of its own loss alone.
        means.sum().backward()
        self.optimizer.step()
        return means.detach()

    @torch.no_grad()
    def judge(
        self, features: Float[Tensor, "image dim"], labels: Int[Tensor, "image"]
    ) -> tuple[Float[Tensor, "head"], Float[Tensor, "head"]]:
        """Accuracy and mean cross-entropy of every head, on the CPU; the images come to the device block by block."""
        right, losses = (torch.zeros(len(self), dtype=torch.float64) for _ in range(2))
        rows = max(1, BLOCK_BYTES // (4 * len(self) * len(self.layers[0])))
        for some, own in zip(features.split(rows), labels.split(rows), strict=True):
            own = own.to(self.layers[0].device)
            logits = self.logits(some.to(self.layers[0].device))
            right += (logits.argmax(dim=2) == own[:, None]).sum(dim=0).cpu()
            each = F.cross_entropy(logits.flatten(0, 1), own.repeat_interleave(len(self)), reduction="none")
            losses += each.unflatten(0, (-1, len(self))).sum(dim=0).cpu()
        return right / len(labels), losses / len(labels)

    @torch.no_grad()
    def predict(self, features: Float[Tensor, "image dim"], head: int) -> Int[Tensor, "image"]:
        """What one head takes images for, on the CPU; they come to the device block by block."""
        layer = self.layers[head]
        rows = max(1, BLOCK_BYTES // (4 * max(layer.shape)))
        return torch.cat([
            F.linear(some.to(layer.device), layer[:, :-1], layer[:, -1]).argmax(dim=1).cpu()
            for some in features.split(rows)
        ])  # fmt: skip

    def finite(self) -> list[bool]:
        """Which heads have not diverged."""
        return [bool(layer.isfinite().all()) for layer in self.layers]
