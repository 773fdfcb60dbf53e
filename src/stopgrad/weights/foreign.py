"""Which network other programs' weights belong to, by their names and shapes.

The names as training programs write them: the authors' GSG code and the official SimSiam `module.encoder.*` (its `fc`
is the projector; BYOL's average is `module.encoder_momentum.*`), MoCo `module.encoder_q.*`, MoCo v3
`module.base_encoder.*`, DINO `teacher.backbone.*`, Lightly `backbone.0.*` (a Sequential of the ResNet's children) or
`backbone.*`, torchvision none.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from stopgrad.errors import CheckpointError
from stopgrad.nets.backbones import LINEAR_STEM, SMALL_RESNETS, build_backbone, native_image_size
from stopgrad.weights.candidates import Candidates, candidates_for
from stopgrad.weights.conventions import Usual, triple_words, usual_of, usual_of_kind
from stopgrad.weights.fit import Fit, MisfitError, fill, prefixes_of, some
from stopgrad.weights.options import LoadOptions

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
# Of a network's names, the share that a file must have to hold it.
LEAST_SHARE = 0.1
_STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Recognised:
    """A backbone found in a file."""

    module: nn.Module
    """The backbone with its weights."""
    backbone: str
    stem: str
    usual: Usual
    """How images come to such a network."""
    prefix: str
    """What the names of its weights begin with in the file."""
    left_out: Sequence[str]
    """The beginnings of all other names."""
    fit: Fit
    told_by: str = ""
    """What told which network it is, where that is not plain."""

    @property
    def words(self) -> str:
        """What was recognised, for a message."""
        stem = "" if self.stem == "standard" else f" with {self.stem} stem"
        place = f" from {self.prefix}*" if self.prefix else ""
        told = f", {self.told_by}" if self.told_by else ""
        part = f"; {self.fit.part_words}" if self.fit.part_words else ""
        left_out = f", without {some(self.left_out)}" if self.left_out else ""
        return f"{self.backbone}{stem}{place}{told}{left_out}{part}"


@dataclass(frozen=True)
class _Network:
    """Weights by the backbone's own names, heads included."""

    weights: dict[str, Tensor]
    places: dict[str, str]
    """The same names -> those in the file."""
    backbone: str | None
    stem: str


def recognise(tensors: Mapping[str, Tensor], options: LoadOptions, origin: str, hint: str | None = None) -> Recognised:
    """Find the backbone among a file's tensors: by the given name, as a ResNet, or by all its shapes.

    Weights do not tell everything: a 3x3 stem is taken to have stride 1, padding 1 and no max-pool, and a bottleneck
    its stride in the 3x3 convolution, as torchvision and timm have it. Where several networks of timm have the shapes,
    none is taken.

    Args:
        tensors: by their names in the file.
        options: those of the user.
        origin: the file, for messages.
        hint: timm's name of the network as the file has it, which decides between several that fit.

    Raises:
        CheckpointError: no known network, several, or another than the requested one.
    """
    if options.backbone is not None:
        return _named(tensors, options.backbone, options, origin)
    networks = _resnets(tensors)
    if networks:
        prefix = _choose(networks, options, origin)
        name = networks[prefix].backbone
        try:
            if name is not None:
                return _filled(name, networks[prefix], prefix, tensors, options, origin)
        except MisfitError as error:
            # Its blocks are a ResNet's, but there is more to them.
            if not error.fit.unexpected:
                raise
            if (found := _by_shapes(tensors, options, hint, origin)) is None:
                raise
            return _named(tensors, found[0], options, origin, told_by=found[1])
    candidates = candidates_for(tensors)
    if (found := _by_shapes(tensors, options, hint, origin, candidates)) is not None:
        return _named(tensors, found[0], options, origin, told_by=found[1])
    if networks:
        blocks, known = _blocks(networks[prefix].weights), ", ".join(RESNETS.values())
        what = f"a ResNet of {blocks} blocks a stage, none of {known}, and its weights fit no other network of timm."
    else:
        begin = some(_beginnings(tensors, ""))
        what = f"no known ResNet, and weights that fit no network of timm; they begin with {begin}."
    near = "; ".join(f"{name}, but {fit.words}" for name, fit in candidates.nearest)
    raise CheckpointError(
        f"{origin} holds {what} Of another network, give its timm name: --backbone NAME (backbone=NAME in Python), and "
        "--partial where it fits in part." + (f" Nearest: {near}." if near else "")
        + ("" if candidates.whole else " Not all networks could be tried in the time for it."), topic="which-network"
    )  # fmt: skip


def _by_shapes(
    tensors: Mapping[str, Tensor], options: LoadOptions, hint: str | None, origin: str,
    candidates: Candidates | None = None,
) -> tuple[str, str] | None:  # fmt: skip
    """The network that weights fit, and what tells it from others; None where they fit none.

    Raises:
        CheckpointError: they fit several.
    """
    candidates = candidates or candidates_for(tensors)
    fitting = candidates.fitting
    if hint is not None and hint.partition(".")[0] in fitting:
        return hint, "as the file says"
    if not fitting:
        return None
    choices = [choice for name in fitting for choice in _choices(name, options)]
    if len(choices) == 1 and candidates.whole:
        return choices[0][0], "the one network of timm with these shapes"
    named = some((f"{name} ({words})" if words else name for name, words in choices), 12)
    raise CheckpointError(
        f"{origin} fits several networks of timm, which the weights cannot distinguish (padding, normalisation or the "
        f"like differ): choose one by --backbone NAME (backbone=NAME in Python), one of {named}.", topic="which-network"
    )  # fmt: skip


def _choices(name: str, options: LoadOptions) -> list[tuple[str, str]]:
    """Names for an architecture with the normalisation of each: of those with weights that differ in it, the tags."""
    tags: dict[str, str] = {}
    for tag in timm.list_pretrained(f"{name}.*"):
        usual = usual_of(tag)
        if usual is not None:
            tags.setdefault(f"mean {triple_words(usual.mean)}, std {triple_words(usual.std)}", tag)
    if len(tags) > 1 and not (options.mean and options.std):
        return [(tag, words) for words, tag in tags.items()]
    return [(name, next(iter(tags), ""))]


def _named(
    tensors: Mapping[str, Tensor], backbone: str, options: LoadOptions, origin: str, told_by: str = ""
) -> Recognised:
    """The network of a name."""
    networks: Mapping[str, _Network] = {}
    if backbone.split(".")[0] in RESNETS.values():
        networks = _resnets(tensors)
    if not networks and (options.partial or backbone.split(".")[0] not in RESNETS.values()):
        networks = _networks_like(tensors, backbone, options.stem or "standard", origin)
    if not networks:
        raise CheckpointError(
            f"{origin} holds no {backbone}; its weights begin with {some(_beginnings(tensors, ''))}. Of another "
            "network, give its timm name: --backbone NAME (backbone=NAME in Python)."
        )
    prefix = _choose(networks, options, origin)
    network = networks[prefix]
    kind = network.backbone
    if kind is not None and not options.partial and backbone.split(".")[0] != kind.split(".")[0]:
        raise CheckpointError(f"{origin} holds a {kind}, not a {backbone}.", topic="which-network")
    return _filled(backbone, network, prefix, tensors, options, origin, told_by=told_by)


def _filled(
    backbone: str, network: _Network, prefix: str, tensors: Mapping[str, Tensor], options: LoadOptions, origin: str,
    told_by: str = "",
) -> Recognised:  # fmt: skip
    stem = options.stem or network.stem
    usual = usual_of_kind(stem, native_image_size(backbone) if stem == "standard" else 32)
    # ResNets by their plain name are as torchvision's and most other programs', whatever timm's own weights want.
    if stem == "standard" and backbone not in RESNETS.values():
        usual = usual_of(backbone) or usual
    size = options.image_size or usual.image_size
    module, fit = fill(backbone, stem, size, network.weights, origin, partial=bool(options.partial))
    used = {network.places.get(name) for name in module.state_dict()}
    left_out = _beginnings((name for name in tensors if name not in used), prefix)
    return Recognised(module, backbone, stem, usual, prefix, left_out, fit, told_by)


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
    own = list(module.state_dict())
    found = {}
    for prefix in prefixes_of(tensors, own):
        places = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
        if len(places.keys() & set(own)) >= LEAST_SHARE * len(own):
            found[prefix] = _Network({n: tensors[place] for n, place in places.items()}, places, backbone, stem)
    return found


def _choose(networks: Mapping[str, _Network], options: LoadOptions, origin: str) -> str:
    """The prefix of the network to take."""
    if options.prefix is not None:
        for prefix in (options.prefix, f"{options.prefix}."):
            if prefix in networks:
                return prefix
        raise CheckpointError(f"{origin} has no network at prefix={options.prefix!r}, but at {some(list(networks))}.")
    leaders = [p for p in networks if not FOLLOWERS & set(re.split(r"[._]", p))] or list(networks)
    shortest = min(leaders, key=len)
    # A module may be registered twice.
    first = next(iter(networks[shortest].weights))
    for other in leaders:
        there = networks[other].weights.get(first)
        if there is None or not torch.equal(there, networks[shortest].weights[first]):
            which = some(leaders)
            raise CheckpointError(f"{origin} holds several networks: choose one by prefix=, one of {which} (--prefix).")
    return shortest


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
