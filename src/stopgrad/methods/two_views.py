"""Methods whose loss takes two views' projections of one encoder: SimCLR, Barlow Twins, VICReg."""

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Generator, Tensor, nn

from stopgrad.config import Config
from stopgrad.methods.protocol import Initial, Method, Views, initial_backbone, projector_of
from stopgrad.nets.backbones import num_features
from stopgrad.objective.contrastive import nt_xent
from stopgrad.objective.cosine import at_least_fp32
from stopgrad.objective.redundancy import barlow_twins, vicreg

TwoViewLoss = Callable[[Tensor, Tensor], Tensor]


class TwoViews(Method):
    """An encoder, and a loss of its projections of two views; of four, the mean over the two pairs.

    Args:
        backbone: images to pooled features.
        projector: features to projections.
        loss: of two views' projections `[image, dim]`.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module, loss: TwoViewLoss) -> None:
        super().__init__()
        self.encoder = nn.Sequential(backbone, projector)
        self.loss = loss

    def forward(self, views: Views, generator: Generator) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of a batch; there is nothing else to watch.

        With several processes each computes the loss of all their images, and the gradient of its own.
        """
        projections = [self.batch.gather(at_least_fp32(self.encoder(view))) for view in views]
        pairs = list(zip(projections[::2], projections[1::2], strict=True))
        loss = sum((self.loss(first, second) for first, second in pairs), start=projections[0].new_zeros(()))
        return loss / len(pairs), {}


def build_two_views(config: Config, initial: Initial | None = None) -> TwoViews:
    """The module a config describes; arguments and errors as for `build_siamese`."""
    losses: dict[str, TwoViewLoss] = {
        "simclr": partial(nt_xent, temperature=config.objective.temperature),
        "barlow_twins": barlow_twins,
        "vicreg": vicreg,
    }
    backbone = initial_backbone(config, initial)
    return TwoViews(backbone, projector_of(config, num_features(backbone)), losses[config.objective.method])
