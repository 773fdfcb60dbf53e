"""What a run starts from: the weights that `init` names, and the settings that come with them."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad.config import Config
from stopgrad.data.pixels import RGB8
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.loader.preprocess import settings_of
from stopgrad.nets.backbones import (
    declare_num_features,
    features_shape,
    set_image_size,
    set_pool,
    takes_one_size,
    with_input_channels,
)
from stopgrad.recipes import ADAPT
from stopgrad.weights.options import TIMM
from stopgrad.weights.spec import OWN, EncoderSpec


def with_start(config: Config, given: Mapping[str, Any], device: torch.device) -> tuple[Config, str]:
    """The config with what the initial weights bring along, and a line that says it.

    Backbone, stem, pooling and normalisation come with the weights, but for what the user said. The recipe `adapt`
    takes the weights' own size to evaluate at, and on a GPU to train at.

    Args:
        config: the run's, `init` not `random`.
        given: the settings that the user gave.
        device: what it will be trained on.

    Raises:
        CheckpointError: weights that are not there, or do not fit.
        ConfigError: settings that do not go with them.
    """
    network = config.network
    if network.init == "pretrained":
        config = config.replace(init=f"{TIMM}{network.backbone}")
    if network.norm == "group":
        raise ConfigError(
            f"norm = 'group' with init = {network.init!r}: its weights were trained with other norms; use norm = "
            "'frozen' or 'batch', or init = 'random'."
        )
    encoder = _load(config, named="backbone" in given, stem="stem" in given)
    spec = encoder.spec
    assert spec is not None
    brought: dict[str, Any] = {"backbone": spec.backbone, "stem": spec.stem}
    brought |= {"pool": spec.pool, "patch_size": spec.patch_size}
    brought |= _of_images(spec, given)
    if config.recipe == ADAPT:
        views = spec.image_size if device.type == "cuda" else min(config.data.image_size, spec.image_size)
        if "image_size" not in given:
            brought["image_size"] = views
        size = given.get("image_size", views)
        if takes_one_size(encoder.backbone):
            brought["eval_size"] = 0
        else:
            brought["eval_size"] = spec.image_size if spec.image_size != size else 0
    new = config.replace(**{name: value for name, value in brought.items() if name not in given})
    return new, encoder.name


def _of_images(spec: EncoderSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights say of images, unless those are to be of other channels or bits."""
    p = spec.pixels
    if p == RGB8:
        return {"mean": spec.mean, "std": spec.std}
    own = settings_of(spec.preprocess())
    del own["image_size"]
    others = any(name in given and given[name] != own[name] for name in ("channels", "depth", "value_range", "pages"))
    return {} if others else own


def initial_weights(config: Config) -> dict[str, Tensor] | None:
    """The weights that the backbone starts from; None: they are drawn.

    Raises:
        CheckpointError: weights that are not there, or do not fit.
        ConfigError: another network than the config's.
    """
    network = config.network
    if network.init == "random":
        return None
    encoder = _load(config, named=True, stem=True)
    try:
        set_pool(encoder.backbone, network.backbone, network.pool)
        set_image_size(encoder.backbone, network.backbone, config.data.image_size, network.patch_size)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    weights: dict[str, Tensor] = encoder.backbone.state_dict()
    channels, spec = len(config.augmentation.mean), encoder.spec
    if spec is not None and len(spec.mean) != channels:
        if len(spec.mean) != 3:
            raise ConfigError(
                f"init = {network.init!r}: its images have {len(spec.mean)} channels, these {channels}; of others than "
                "3 the first layer cannot be adapted.",
                topic="wrong-channels",
            )
        weights = with_input_channels(weights, replace(spec, mean=config.augmentation.mean).build())
    return weights


def _load(config: Config, *, named: bool, stem: bool) -> Encoder:
    network = config.network
    try:
        return load_encoder(
            network.init, backbone=network.backbone if named else None, stem=network.stem if stem else None,
            partial=network.init_partial,
        )  # fmt: skip
    except (CheckpointError, ConfigError) as error:
        # As they are called here.
        words = str(error).replace("--partial", "--init-partial").replace("partial=True", "init_partial=True")
        raise type(error)(f"init = {network.init!r}: {words}") from error


def own_backbone(module: nn.Module, image_size: int, channels: int = 3) -> nn.Module:
    """A copy of a caller's network, with the dimension of its features found by a dry run.

    Raises:
        ConfigError: it does not turn images `[2, channels, image_size, image_size]` into features `[2, dim]`.
    """
    copied = copy.deepcopy(module).cpu()
    name = type(module).__name__
    try:
        shape = features_shape(copied, image_size, channels)
    # Whatever the caller's code raises.
    except Exception as error:
        raise ConfigError(
            f"backbone: a {name} fails on images of {image_size} x {image_size}: {type(error).__name__}: {error}"
        ) from error
    if len(shape) != 2 or shape[0] != 2:
        raise ConfigError(f"backbone: a {name} returns {tuple(shape)} for 2 images: needs pooled features [2, dim].")
    declare_num_features(copied, shape[1])
    return copied


def own_name(module: nn.Module) -> str:
    """What a config calls a caller's network."""
    return f"{OWN}{type(module).__name__}"
