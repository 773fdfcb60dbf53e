"""Weights for timm's own loader, and the lines that build the network there."""

import json
import math
from pathlib import Path
from typing import Any

import timm
from timm.models import load_checkpoint
from torch import nn

from stopgrad.artifacts.checkpoint import write_weights
from stopgrad.encoder.encoder import Encoder
from stopgrad.exports.verify import Written, compare, quoted, spec_of
from stopgrad.nets.backbones import LINEAR_STEM, SMALL_RESNETS, native_image_size
from stopgrad.weights.spec import EncoderSpec


def write_timm(encoder: Encoder, path: Path) -> Written:
    """Write a .safetensors file that timm loads, and load it there."""
    spec = spec_of(encoder)
    write_weights(path, encoder.backbone)
    difference, scale = compare(encoder, timm_loads(spec, path), path)
    notes = () if has_timm_name(spec) else (no_name_words(spec),)
    return Written((path.name,), timm_lines(spec, str(path)), notes, difference, scale)


def timm_loads(spec: EncoderSpec, path: Path) -> nn.Module:
    """The network as timm's loader fills it."""
    if has_timm_name(spec):
        named: nn.Module = timm.create_model(
            spec.backbone, num_classes=0, checkpoint_path=str(path), **timm_arguments(spec)
        )
        return named
    # What the lines below do.
    built = spec.build()
    load_checkpoint(built, str(path))
    return built


def has_timm_name(spec: EncoderSpec) -> bool:
    """Whether a name and arguments are all that timm needs to build the network.

    Its ResNets have a stem of 64 channels, a 7x7 convolution at stride 2 and a max-pool, none of which an argument
    changes; so those with a small stem or a narrow one have no name.
    """
    return spec.stem == "standard" and spec.backbone not in SMALL_RESNETS


def no_name_words(spec: EncoderSpec) -> str:
    """Why timm needs more than a name."""
    what = "narrow ResNets" if spec.backbone in SMALL_RESNETS else f"ResNets with a {spec.stem} stem"
    return f"timm has no name for {what}: these lines build it of timm's own parts."


def timm_arguments(spec: EncoderSpec) -> dict[str, Any]:
    """What `timm.create_model` must be told beside the name."""
    usual = spec.image_size == native_image_size(spec.backbone) or not _sized(spec)
    arguments: dict[str, Any] = {} if usual else {"img_size": spec.image_size}
    if len(spec.mean) != 3:
        arguments["in_chans"] = len(spec.mean)
    if spec.patch_size:
        arguments["patch_size"] = spec.patch_size
    if spec.pool != "default":
        arguments["global_pool"] = spec.pool
        if hasattr(spec.build(), "fc_norm"):  # of ViTs: timm would normalise behind an average, and not before it
            arguments["fc_norm"] = False
    return arguments


def timm_lines(spec: EncoderSpec, file: str) -> str:
    """Lines of Python that build the network with timm alone, as `model`, and load the weights."""
    if has_timm_name(spec):
        more = "".join(f", {name}={value!r}" for name, value in timm_arguments(spec).items())
        arguments = f'"{spec.backbone}", num_classes=0{more}, checkpoint_path={quoted(file)}'
        return f"import timm\nmodel = timm.create_model({arguments}).eval()\n"
    lines = ["import timm"]
    if spec.backbone in SMALL_RESNETS:
        layers, channels = SMALL_RESNETS[spec.backbone]["layers"], SMALL_RESNETS[spec.backbone]["channels"]
        width = channels[0]
        lines += [
            "from timm.models.resnet import BasicBlock, ResNet",
            "from torch import nn",
            f"model = ResNet(BasicBlock, {layers}, num_classes=0, channels={channels})",
            f"model.bn1 = nn.BatchNorm2d({width})",
            f"model.layer1[0].conv1 = nn.Conv2d({width}, {width}, 3, padding=1, bias=False)",
            "model.layer1[0].downsample = None",
        ]
    else:
        width = 64
        lines += ["from torch import nn", f'model = timm.create_model("{spec.backbone}", num_classes=0)']
    lines += stem_lines(spec, width, relu="act1")
    lines += [f"timm.models.load_checkpoint(model, {quoted(file)})", "model.eval()"]
    return "\n".join(lines) + "\n"


def stem_lines(spec: EncoderSpec, width: int, relu: str) -> list[str]:
    """Lines that give `model`, a ResNet, the spec's stem; `relu` is what it calls the activation behind it."""
    channels = len(spec.mean)
    if spec.stem == "standard":
        as_built = (width, channels) == (64, 3)
        return [] if as_built else [f"model.conv1 = nn.Conv2d({channels}, {width}, 7, stride=2, padding=3, bias=False)"]
    stride = 2 if spec.stem == "small_stride2" else 1
    lines = [
        f"model.conv1 = nn.Conv2d({channels}, {width}, 3, stride={stride}, padding=1, bias=False)",
        "model.maxpool = nn.Identity()",
    ]
    return [*lines, f"model.{relu} = nn.Identity()"] if spec.stem == LINEAR_STEM else lines


def timm_config(encoder: Encoder) -> str:
    """config.json as timm reads it from a folder or the Hugging Face Hub."""
    spec, p = spec_of(encoder), encoder.preprocess
    usual = timm.get_pretrained_cfg(spec.backbone, allow_unregistered=True)
    known = {} if usual is None else {"first_conv": usual.first_conv, "classifier": usual.classifier}
    config: dict[str, Any] = {
        "architecture": spec.backbone.split(".")[0], "num_classes": 0, "num_features": spec.num_features,
        "pretrained_cfg": {
            "custom_load": False, "input_size": [len(p.mean), p.size, p.size], "fixed_input_size": _sized(spec),
            "interpolation": "bilinear", "crop_pct": crop_pct(p.size, p.resize), "crop_mode": "center",
            "mean": list(p.mean), "std": list(p.std), "num_classes": 0, "pool_size": None, **known,
        },
    }  # fmt: skip
    if arguments := timm_arguments(spec):
        config["model_args"] = arguments
    return json.dumps(config, indent=2) + "\n"


def crop_pct(size: int, resize: int) -> float:
    """timm's way to say `resize`: it resizes to floor(size / crop_pct)."""
    share = size / resize
    while math.floor(size / share) < resize:
        share = math.nextafter(share, 0.0)
    return share


def _sized(spec: EncoderSpec) -> bool:
    """Whether timm builds the network for images of one size."""
    usual = timm.get_pretrained_cfg(spec.backbone, allow_unregistered=True)
    return bool(usual is not None and usual.fixed_input_size)
