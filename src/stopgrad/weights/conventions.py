"""Preprocessing of a network: by timm's config of it, or as usual for its kind."""

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_data_config
from torch import nn

from stopgrad.errors import CheckpointError
from stopgrad.loader.preprocess import eval_resize
from stopgrad.weights.fit import weightless
from stopgrad.weights.options import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD, LoadOptions, Triple
from stopgrad.weights.spec import EncoderSpec


@dataclass(frozen=True)
class Usual:
    """Size and normalisation of images."""

    image_size: int
    resize: int
    """Of the shorter side, before the centre is cut out."""
    mean: Triple
    std: Triple
    of: str = ""
    """The network whose config says so; empty: the defaults of this program."""

    def spec(self, backbone: str, stem: str, num_features: int, options: LoadOptions) -> EncoderSpec:
        """The spec of a network, with what was asked instead of what is usual."""
        size = options.image_size or self.image_size
        return EncoderSpec(
            backbone=backbone, stem=stem, num_features=num_features, image_size=size,
            resize=self.resize if size == self.image_size else eval_resize(size),
            mean=options.mean or self.mean, std=options.std or self.std,
        )  # fmt: skip


def usual_of_kind(stem: str, image_size: int) -> Usual:
    """ImageNet's normalisation; with a small stem CIFAR-10's."""
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if stem == "standard" else (CIFAR_MEAN, CIFAR_STD)
    return Usual(image_size, eval_resize(image_size), mean, std)


def usual_of(name: str) -> Usual | None:
    """What timm's config of a network says; None where it has none.

    Args:
        name: a timm name, with the tag of its weights or without: then those that timm takes first.

    Raises:
        RuntimeError: timm knows no such tag.
    """
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return None
    tag = f".{config.tag}" if config.tag and "." not in name else ""
    return usual_from(config.to_dict(), f"{name}{tag}")


def usual_from(config: Mapping[str, Any], of: str) -> Usual:
    """The same from a config as timm writes it.

    Raises:
        ValueError, TypeError: it is no config.
    """
    resolved = resolve_data_config(pretrained_cfg=dict(config))
    size = int(resolved["input_size"][-1])
    mean, std = (tuple(float(v) for v in resolved[name]) for name in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"{of} is for images of {len(mean)} channels, not 3")
    # timm's own arithmetic.
    return Usual(size, math.floor(size / float(resolved["crop_pct"])), mean, std, of)


def triple_words(values: Sequence[float]) -> str:
    """A number a channel, or one where they are equal."""
    return f"{values[0]:g}" if len(set(values)) == 1 else ",".join(f"{value:g}" for value in values)


CONFIG = "config.json"
# In the order in which timm takes one of a folder.
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
# Arguments of a network that do not change its features.
_HARMLESS = {"num_classes", "img_size", "drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate", "pretrained"}


@dataclass(frozen=True)
class Described:
    """What a config says."""

    backbone: str
    usual: Usual | None
    """How images come to the network; None where the config does not say."""
    where: Path
    """The config."""


def weights_in(folder: Path) -> Path | None:
    """The file of weights in a folder in the layout of a hub."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def described(file: Path) -> Described | None:
    """What the config beside a file of weights says; None where there is none, or one that names no timm network.

    Raises:
        CheckpointError: it names a network that cannot be built here.
    """
    for config_file in (file.with_suffix(".json"), file.with_name(CONFIG)):
        try:
            config = json.loads(config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        name = config.get("architecture") if isinstance(config, dict) else None
        if isinstance(name, str) and timm.is_model(name.partition(".")[0]):
            return _read(config, name, config_file)
    return None


def hint_of(metadata: Mapping[str, str]) -> str | None:
    """timm's name of a network among what a file says of itself, such as `arch`; None where there is none."""
    for key in ("architecture", "arch", "backbone", "model_name", "model"):
        name = metadata.get(key)
        if name and timm.is_model(name.partition(".")[0]):
            return name
    return None


def _change_nothing(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether timm builds the same network with some arguments and without: the same modules, set in the same way."""
    # Those of the function itself, not of a network, say among others which file of weights it reads.
    if arguments.keys() & inspect.signature(timm.create_model).parameters.keys():
        return False
    try:
        with weightless():
            plain, other = timm.create_model(name), timm.create_model(name, **arguments)
    # Whatever the network makes of arguments that it does not take.
    except Exception:
        return False
    return [_settings(module) for module in plain.modules()] == [_settings(module) for module in other.modules()]


def _settings(module: nn.Module) -> dict[str, Any]:
    plain = (str, int, float, bool, tuple, type(None))
    return {"": type(module), **{key: value for key, value in vars(module).items() if isinstance(value, plain)}}


def _read(config: dict[str, Any], name: str, file: Path) -> Described:
    arguments = config.get("model_args") or {}
    other = {key: arguments[key] for key in sorted(set(arguments) - _HARMLESS)}
    if other and not _change_nothing(name, other):
        said = ", ".join(f"{key}={value!r}" for key, value in other.items())
        raise CheckpointError(
            f"{file} describes a {name} that is built with {said}, which is another network than timm builds by that "
            f"name: --backbone {name} (backbone={name!r} in Python) takes the weights as they are, if they fit."
        )
    usual = config.get("pretrained_cfg", config)
    try:
        known = isinstance(usual, dict) and "mean" in usual and "std" in usual
        found = usual_from(usual, str(file)) if known else None
    except (ValueError, TypeError, AssertionError) as error:
        raise CheckpointError(f"{file} cannot be used: {error}.") from error
    return Described(name, found, file)
