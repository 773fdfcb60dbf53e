"""The heads on the backbone while it trains: projector and predictor.

Source: SimSiam (arXiv 2011.10566), section 4, "Baseline settings": BatchNorm after every layer of the projector, none
at the predictor's output.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def build_projector(in_dim: int, width: int, out_dim: int, num_layers: int, *, norm: str = "all") -> nn.Sequential:
    """Features to projections, through hidden layers with ReLU.

    Args:
        in_dim, width, out_dim: dimensions of features, hidden layers and projections.
        num_layers: at least 1.
        norm: where BatchNorm stands. `all`: after every layer, at the end without affine (SimSiam); `hidden`: after
            hidden layers only (BYOL, Barlow Twins, VICReg); `none` (MoCo v2).
    """
    layers: list[nn.Module] = []
    for _ in range(num_layers - 1):
        layers.append(nn.Linear(in_dim, width, bias=norm == "none"))
        if norm != "none":
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU(inplace=True))
        in_dim = width
    layers.append(nn.Linear(in_dim, out_dim, bias=norm != "all"))
    if norm == "all":
        layers.append(nn.BatchNorm1d(out_dim, affine=False))
    return nn.Sequential(*layers)


def build_predictor(dim: int, width: int) -> nn.Sequential:
    """Projections to predictions of the same dimension, through a bottleneck."""
    return nn.Sequential(
        nn.Linear(dim, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, dim)
    )


class Prototypes(nn.Module):
    """Cosines of projections with learnt directions.

    Args:
        dim: of a projection.
        num: directions.

    Source: the last layer of DINO's head (arXiv 2104.14294, appendix C), weights normalised.
    """

    def __init__(self, dim: int, num: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num, dim))

    def forward(self, projections: Float[Tensor, "image dim"]) -> Float[Tensor, "image prototype"]:
        """Logits in -1..1."""
        return F.linear(F.normalize(projections, dim=1), F.normalize(self.weight, dim=1))
