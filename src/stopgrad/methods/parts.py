"""What every method is made of: the backbone as it begins, and the projector on it."""

from collections.abc import Mapping

from torch import Tensor, nn

from stopgrad.config import Config
from stopgrad.nets.backbones import build_backbone
from stopgrad.nets.heads import build_projector


def initial_backbone(config: Config, initial: Mapping[str, Tensor] | None) -> nn.Module:
    """The backbone a config describes, with weights drawn from torch's global generator or those given.

    Raises:
        ValueError: a backbone that does not exist, or initial weights that do not fit it.
    """
    network = config.network
    backbone = build_backbone(
        network.backbone, stem=network.stem, image_size=config.data.image_size,
        pretrained=network.init == "pretrained",
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
