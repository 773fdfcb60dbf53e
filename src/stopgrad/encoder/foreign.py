"""Which network other programs' weights belong to, told from their names and shapes.

The names as training programs write them: the authors' GSG code and the official SimSiam `module.encoder.*` (its `fc`
is the projector; BYOL's average is `module.encoder_momentum.*`), MoCo `module.encoder_q.*`, MoCo v3
`module.base_encoder.*`, DINO `teacher.backbone.*`, Lightly `backbone.0.*` (a Sequential of the ResNet's children) or
`backbone.*`, torchvision none.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stopgrad.encoder.asked import Asked
from stopgrad.errors import CheckpointError
from stopgrad.nets.backbones import LINEAR_STEM, SMALL_RESNETS, build_backbone, native_image_size, set_image_size

# (bottleneck blocks?, blocks a stage, channels out of and into the first block's 3x3) -> timm's name.
RESNETS: Mapping[tuple[bool, tuple[int, ...], tuple[int, int]], str] = {
    (False, (2, 2, 2, 2), (64, 64)): "resnet18",
    (False, (3, 4, 6, 3), (64, 64)): "resnet34",
    (True, (3, 4, 6, 3), (64, 64)): "resnet50",
    (True, (3, 4, 23, 3), (64, 64)): "resnet101",
    (True, (3, 8, 36, 3), (64, 64)): "resnet152",
    (True, (3, 4, 6, 3), (128, 128)): "wide_resnet50_2",
    (True, (3, 4, 23, 3), (128, 128)): "wide_resnet101_2",
    (True, (3, 4, 6, 3), (128, 4)): "resnext50_32x4d",
    (True, (3, 4, 23, 3), (256, 8)): "resnext101_32x8d",
} | {(False, net["layers"], (net["channels"][0],) * 2): name for name, net in SMALL_RESNETS.items()}
# Words in the names of networks that follow another, which are taken if there is no other. Of a student and a teacher
# the teacher is the one that its authors evaluate (DINO, arXiv 2104.14294).
FOLLOWERS = {"momentum", "ema", "target", "student", "k"}
MAX_NAMED = 8
_STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Recognised:
    """A backbone found in a file."""

    module: nn.Module
    """The backbone with its weights."""
    backbone: str
    stem: str
    image_size: int
    prefix: str
    """What the names of its weights begin with in the file."""
    left_out: Sequence[str]
    """The beginnings of all other names."""

    @property
    def words(self) -> str:
        """What was recognised, for a message."""
        stem = "" if self.stem == "standard" else f" with {self.stem} stem"
        place = f" from {self.prefix}*" if self.prefix else ""
        return f"{self.backbone}{stem}{place}" + (f", without {_some(self.left_out)}" if self.left_out else "")


@dataclass(frozen=True)
class _Network:
    """Weights by the backbone's own names, heads included."""

    weights: dict[str, Tensor]
    places: dict[str, str]
    """The same names -> those in the file."""
    backbone: str | None
    stem: str


def recognise(tensors: Mapping[str, Tensor], asked: Asked, origin: str) -> Recognised:
    """Find the backbone among a file's tensors: ResNets by themselves, any other by the name that is asked for.

    Weights do not tell everything: a 3x3 stem is taken to have stride 1, padding 1 and no max-pool, and a bottleneck
    its stride in the 3x3 convolution, as torchvision and timm have it.

    Args:
        tensors: by their names in the file.
        asked: what the user says of it.
        origin: the file, for messages.

    Raises:
        CheckpointError: no network that is known, several, or another than was asked for.
    """
    networks = _resnets(tensors)
    if asked.backbone is not None and asked.backbone.split(".")[0] not in RESNETS.values():
        networks = _networks_like(tensors, asked.backbone, asked.stem or "standard", origin)
    prefix = _choose(networks, tensors, asked, origin)
    network = networks[prefix]
    if network.backbone is None and asked.backbone is None:
        raise CheckpointError(
            f"{origin} holds a ResNet of {_blocks(network.weights)} blocks a stage that is none of "
            f"{', '.join(RESNETS.values())}: say which timm network it is, by backbone=NAME."
        )
    backbone, stem = asked.backbone or str(network.backbone), asked.stem or network.stem
    if network.backbone is not None and backbone.split(".")[0] != network.backbone.split(".")[0]:
        raise CheckpointError(f"{origin} holds a {network.backbone}, not a {backbone}.")
    size = asked.image_size or (native_image_size(backbone) if stem == "standard" else 32)
    module = _filled(backbone, stem, size, network.weights, origin)
    used = {network.places.get(name) for name in module.state_dict()}
    left_out = _beginnings((name for name in tensors if name not in used), prefix)
    return Recognised(module, backbone, stem, size, prefix, left_out)


def _resnets(tensors: Mapping[str, Tensor]) -> dict[str, _Network]:
    """ResNets by what their names begin with."""
    prefixes = set()
    for name in tensors:
        # The first block's first convolution, by its name or in a Sequential.
        match = re.fullmatch(r"(|.*\.)(?:layer1|\d+)\.0\.conv1\.weight", name)
        if match:
            prefixes.add(match[1])
    found = {prefix: _resnet_at(tensors, prefix) for prefix in sorted(prefixes)}
    return {prefix: network for prefix, network in found.items() if network is not None}


def _resnet_at(tensors: Mapping[str, Tensor], prefix: str) -> _Network | None:
    places = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
    relu = True
    if "conv1.weight" not in places:
        numbers = sorted({int(match[0]) for name in places if (match := re.match(r"\d+(?=\.)", name))})
        # conv1, bn1, ReLU, max-pool and four stages; those without weights have no number here.
        if len(numbers) < 6 or numbers[:2] != [0, 1]:
            return None
        relu = numbers[2] > 2
        names = dict(zip(map(str, numbers), ("conv1", "bn1", *_STAGES), strict=False))
        places = {_renamed(name, names): place for name, place in places.items()}
    # As CIFAR ResNets that are no torchvision ones call it.
    places = {name.replace(".shortcut.", ".downsample."): place for name, place in places.items()}
    weights = {name: tensors[place] for name, place in places.items()}
    stem = weights.get("conv1.weight")
    if stem is None or stem.ndim != 4 or any(f"{stage}.0.conv2.weight" not in weights for stage in _STAGES):
        return None
    if stem.shape[-1] not in (3, 7) or (stem.shape[-1] == 7 and not relu):
        return None
    kind = "standard" if stem.shape[-1] == 7 else "small" if relu else LINEAR_STEM
    return _Network(weights, places, _resnet_name(weights), kind)


def _resnet_name(weights: Mapping[str, Tensor]) -> str | None:
    bottleneck = "layer1.0.conv3.weight" in weights
    spatial = weights[f"layer1.0.conv{2 if bottleneck else 1}.weight"]
    return RESNETS.get((bottleneck, _blocks(weights), (spatial.shape[0], spatial.shape[1])))


def _blocks(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    return tuple(len({n.split(".")[1] for n in weights if n.startswith(f"{stage}.")}) for stage in _STAGES)


def _networks_like(tensors: Mapping[str, Tensor], backbone: str, stem: str, origin: str) -> dict[str, _Network]:
    """Networks that begin with the same name as the given one."""
    try:
        module = build_backbone(backbone, stem=stem, image_size=native_image_size(backbone))
    except ValueError as error:
        raise CheckpointError(f"{origin}: {error}") from error
    first = next(iter(module.state_dict()))
    found = {}
    for prefix in (name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")):
        places = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
        found[prefix] = _Network({n: tensors[place] for n, place in places.items()}, places, backbone, stem)
    return found


def _choose(networks: Mapping[str, _Network], tensors: Mapping[str, Tensor], asked: Asked, origin: str) -> str:
    """The prefix of the network to take."""
    if not networks:
        what = f"{asked.backbone}" if asked.backbone else "ResNet of a kind that is known"
        raise CheckpointError(
            f"{origin} holds no {what}; its weights begin with {_some(_beginnings(tensors, ''))}. Of another network, "
            "say its timm name: backbone=NAME."
        )
    if asked.prefix is not None:
        for prefix in (asked.prefix, f"{asked.prefix}."):
            if prefix in networks:
                return prefix
        raise CheckpointError(f"{origin} has no network at prefix={asked.prefix!r}: there are {_some(list(networks))}.")
    leaders = [p for p in networks if not FOLLOWERS & set(re.split(r"[._]", p))] or list(networks)
    shortest = min(leaders, key=len)
    # A module may be registered twice.
    first = next(iter(networks[shortest].weights))
    for other in leaders:
        there = networks[other].weights.get(first)
        if there is None or not torch.equal(there, networks[shortest].weights[first]):
            raise CheckpointError(f"{origin} holds several networks: say which by prefix=, one of {_some(leaders)}.")
    return shortest


def _filled(backbone: str, stem: str, size: int, weights: Mapping[str, Tensor], origin: str) -> nn.Module:
    """The backbone with the weights: all of its own must be there, and none that it has no place for."""
    try:
        module = build_backbone(backbone, stem=stem, image_size=size)
        own = module.state_dict()
        if any(weights[n].shape != own[n].shape for n in own if n in weights):
            # Position embeddings may be for the usual size: they are resampled once they are in.
            module = build_backbone(backbone, stem=stem, image_size=native_image_size(backbone))
            own = module.state_dict()
        tops = {name.split(".")[0] for name in own}
        missing = [n for n in own if n not in weights and not n.endswith("num_batches_tracked")]
        unplaced = [n for n in weights if n not in own and n.split(".")[0] in tops]
        if missing or unplaced:
            which = f"lacks {_some(missing)}" if missing else f"has {_some(unplaced)} besides"
            raise CheckpointError(f"{origin} does not fit backbone {backbone!r}: it {which}.")
        module.load_state_dict({n: weights.get(n, own[n]) for n in own})
        set_image_size(module, backbone, size)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{origin} does not fit backbone {backbone!r}: {error}") from error
    return module


def _renamed(name: str, names: Mapping[str, str]) -> str:
    first, dot, rest = name.partition(".")
    return f"{names.get(first, first)}{dot}{rest}"


def _beginnings(names: Iterable[str], prefix: str) -> list[str]:
    """What other names begin with: as far as they go along with the prefix, and one part more."""
    parts = prefix.removesuffix(".").split(".") if prefix else []
    found = []
    for name in names:
        here = name.split(".")
        common = next((i for i, part in enumerate(parts) if i >= len(here) or here[i] != part), len(parts))
        found.append(".".join(here[: common + 1]))
    return list(dict.fromkeys(found))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
