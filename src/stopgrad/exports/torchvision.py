"""A state dict for torchvision's ResNets, whose weights have the same names as timm's."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stopgrad.artifacts.checkpoint import weights_of
from stopgrad.artifacts.files import write_atomically
from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import ConfigError
from stopgrad.exports.timm import stem_lines
from stopgrad.exports.verify import Written, compare, quoted, spec_of
from stopgrad.nets.backbones import LINEAR_STEM
from stopgrad.weights.spec import EncoderSpec

TWINS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2",
         "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")  # fmt: skip


def write_torchvision(encoder: Encoder, path: Path) -> Written:
    """Write a .pth file of plain tensors, without a classifier, and load it with torchvision if it is here.

    Raises:
        ConfigError: a network that torchvision does not have.
    """
    spec = spec_of(encoder)
    name = spec.backbone.split(".")[0]
    if name not in TWINS:
        raise ConfigError(
            f"torchvision has no counterpart of {spec.backbone!r}; it has {', '.join(TWINS)}. Export to "
            "timm, onnx, hub-folder or safetensors instead."
        )
    write_atomically(path, lambda there: torch.save(weights_of(encoder.backbone), there))
    lines = torchvision_lines(spec, str(path))
    notes = ("There is no classifier (no fc keys): fc is an Identity, so that the network returns features.",)
    if find_spec("torchvision") is None:
        return Written((path.name,), lines, (*notes, "Not tried: torchvision is not installed here."))
    difference, scale = compare(encoder, _loaded(spec, path), path)
    return Written((path.name,), lines, notes, difference, scale)


def torchvision_lines(spec: EncoderSpec, file: str) -> str:
    """Lines of Python that build the network with torchvision alone, as `model`, and load the weights."""
    lines = ["import torch", "import torchvision", "from torch import nn"]
    lines += [f"model = torchvision.models.{spec.backbone.split('.')[0]}(weights=None)", "model.fc = nn.Identity()"]
    lines += stem_lines(spec, 64, relu="relu")
    lines += [f"model.load_state_dict(torch.load({quoted(file)}, weights_only=True))", "model.eval()"]
    return "\n".join(lines) + "\n"


def _loaded(spec: EncoderSpec, path: Path) -> nn.Module:
    """What those lines do."""
    import torchvision

    model: Any = torchvision.models.get_model(spec.backbone.split(".")[0], weights=None)
    model.fc = nn.Identity()
    channels = len(spec.mean)
    if spec.stem == "standard" and channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    if spec.stem != "standard":
        model.conv1 = nn.Conv2d(channels, 64, 3, stride=2 if spec.stem == "small_stride2" else 1, padding=1, bias=False)
        model.maxpool = nn.Identity()
        if spec.stem == LINEAR_STEM:
            model.relu = nn.Identity()
    model.load_state_dict(torch.load(path, weights_only=True))
    module: nn.Module = model
    return module
