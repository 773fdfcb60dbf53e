"""What every method is made of: the backbone as it begins, and the projector on it."""

from collections.abc import Mapping

from torch import Tensor, nn

from stopgrad.config import Config
from stopgrad.nets.backbones import build_backbone
from stopgrad.nets.heads import build_projector

Initial = Mapping[str, Tensor] | nn.Module
"""What a backbone starts from: weights by their names, or a module of the caller's own."""


def initial_backbone(config: Config, initial: Initial | None) -> nn.Module:
    """The backbone a config describes, with weights drawn from torch's global generator or those given.

    Args:
        config: the run's.
        initial: its weights, by their names, or a module to take as it is; None: they are drawn.

    Raises:
        ValueError: a backbone that does not exist, or initial weights that do not fit it.
    """
    if isinstance(initial, nn.Module):
        return initial
    network = config.network
    backbone = build_backbone(
        network.backbone, stem=network.stem, image_size=config.data.image_size, norm=network.norm, pool=network.pool,
        patch_size=network.patch_size, drop_path=network.drop_path,
    )  # fmt: skip
    if initial is not None:
        try:
            backbone.load_state_dict(initial)
        except RuntimeError as error:
            raise ValueError(f"init = {network.init!r} does not fit backbone {network.backbone!r}: {error}") from error
    return backbone


def projector_of(config: Config, dim: int) -> nn.Sequential:
    """The projector a config describes, on features of `dim` dimensions."""
    network = config.network
    return build_projector(
        dim, network.projector_width or dim, network.projection_dim, network.projector_layers,
        norm=network.projector_norm,
    )  # fmt: skip
