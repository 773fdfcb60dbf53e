"""What the training loop asks of a method."""

from typing import Any, Protocol

from jaxtyping import Float
from torch import Generator, Tensor, nn

Views = Float[Tensor, "view image 3 height width"]


class Method(Protocol):
    """A method is an `nn.Module` with these members. Its call is the one that data parallelism wraps."""

    backbone: nn.Module
    """What is kept."""

    def __call__(self, views: Views, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and what is worth watching about it (scalars on the device)."""
        ...

    def project(self, images: Float[Tensor, "image 3 height width"]) -> tuple[Tensor, Tensor]:
        """Backbone features and projections of images, for the monitors."""
        ...

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimizer; a group named "predictor" may keep its learning rate."""
        ...

    def after_step(self, progress: float) -> None:
        """Called after the optimizer step, with the share of the run that is done."""
        ...
