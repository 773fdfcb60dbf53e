"""How images come to a network: as timm's config of it says, or as usual for its kind."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from timm.data.config import resolve_data_config

from stopgrad.data.preprocess import eval_resize
from stopgrad.encoder.asked import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD, Asked, Triple
from stopgrad.encoder.spec import EncoderSpec


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

    def spec(self, backbone: str, stem: str, num_features: int, asked: Asked) -> EncoderSpec:
        """The spec of a network, with what was asked instead of what is usual."""
        size = asked.image_size or self.image_size
        return EncoderSpec(
            backbone=backbone, stem=stem, num_features=num_features, image_size=size,
            resize=self.resize if size == self.image_size else eval_resize(size),
            mean=asked.mean or self.mean, std=asked.std or self.std,
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


def triple_words(values: Triple) -> str:
    """Three numbers, or one where they are equal."""
    return f"{values[0]:g}" if len(set(values)) == 1 else ",".join(f"{value:g}" for value in values)
