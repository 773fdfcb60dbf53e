"""The heads on the backbone while it trains: projector and predictor.

Source: SimSiam (arXiv 2011.10566), section 4, "Baseline settings": BatchNorm after every layer of the projector, none
at the predictor's output.
"""

from torch import nn


def build_projector(in_dim: int, width: int, out_dim: int, num_layers: int) -> nn.Sequential:
    """Features to projections: BatchNorm and ReLU after each hidden layer, BatchNorm without affine at the end."""
    layers: list[nn.Module] = []
    for _ in range(num_layers - 1):
        layers += [nn.Linear(in_dim, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        in_dim = width
    layers += [nn.Linear(in_dim, out_dim, bias=False), nn.BatchNorm1d(out_dim, affine=False)]
    return nn.Sequential(*layers)


def build_predictor(dim: int, width: int) -> nn.Sequential:
    """Projections to predictions of the same dimension, through a bottleneck."""
    return nn.Sequential(
        nn.Linear(dim, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, dim)
    )
