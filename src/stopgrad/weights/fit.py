"""Loading weights into a network: which fit and which do not; partial loading leaves the rest at random values."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stopgrad.errors import CheckpointError
from stopgrad.nets.backbones import build_backbone, native_image_size, set_image_size


class _Spaced(TorchFunctionMode):
    """`linspace` on the CPU: earlier releases of timm take stochastic depths from it as numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is torch.linspace:
            given = {"device": "cpu", **given}
        return func(*args, **given)


@contextmanager
def weightless() -> Iterator[None]:
    """What is built inside has shapes and no memory."""
    with torch.device("meta"), _Spaced():
        yield


MAX_NAMED = 8
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """How weights by a network's own names fit it."""

    own: Sequence[str]
    """Names of the network's tensors, but for counts of batches."""
    missing: Sequence[str] = ()
    """Those that the weights lack."""
    unexpected: Sequence[str] = ()
    """Weights that the network has no place for, heads aside."""
    misshapen: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)
    """Those of another shape: there, and in the network."""

    @property
    def whole(self) -> bool:
        """Whether everything fits."""
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def of_another_size(self) -> bool:
        """Whether only position embeddings do not fit, which are of images of another size."""
        return bool(self.misshapen) and all("pos" in n for n in (*self.missing, *self.unexpected, *self.misshapen))

    @property
    def random(self) -> list[str]:
        """What would keep its random initialisation."""
        return [*self.missing, *self.misshapen]

    @property
    def words(self) -> str:
        """What does not fit."""
        shapes = [f"{name} is {_shape(there)}, not {_shape(own)}" for name, (there, own) in self.misshapen.items()]
        parts = [
            f"it lacks {some(gathered(self.missing, self.own))}" if self.missing else "",
            f"it has {some(self.unexpected)} besides" if self.unexpected else "",
            some(shapes, 3),
        ]
        return "; ".join(filter(None, parts))

    @property
    def part_words(self) -> str:
        """What was taken, where not all was."""
        random = self.random
        parts = [
            f"{len(random)} of {len(self.own)} tensors left at their random start: {some(gathered(random, self.own))}"
            if random
            else "",
            f"no place for {some(self.unexpected, 3)}" if self.unexpected else "",
        ]
        return "" if self.whole else f"in part, {'; '.join(filter(None, parts))}"


class MisfitError(CheckpointError):
    """Weights that fit a network in part or not at all."""

    def __init__(self, message: str, fit: Fit) -> None:
        super().__init__(message, topic="which-network")
        self.fit = fit


def fit_of(own: Mapping[str, Shape], there: Mapping[str, Shape], backbone: str) -> Fit:
    """Hold weights against a network.

    Args:
        own: names and shapes of the network.
        there: those of the weights, heads included.
        backbone: the network's name, for the names of its heads.
    """
    tops = {name.split(".")[0] for name in own}
    unplaced = [name for name in there if name not in own and name.split(".")[0] in tops]
    if unplaced:
        heads = heads_of(backbone)
        unplaced = [name for name in unplaced if name not in heads]
    # Older programs save no count of batches.
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    return Fit(
        own=needed,
        missing=[name for name in needed if name not in there],
        unexpected=unplaced,
        misshapen={n: (there[n], own[n]) for n in own if n in there and there[n] != own[n]},
    )


def fill(
    backbone: str, stem: str, image_size: int, weights: Mapping[str, Tensor], origin: str, *, partial: bool
) -> tuple[nn.Module, Fit]:
    """A network with weights, which are by its own names.

    Args:
        backbone, stem, image_size: the network.
        weights: heads included, which are left out.
        origin: where they are from, for messages.
        partial: whether what does not fit keeps its random initialisation instead of being refused.

    Raises:
        CheckpointError: no such network, or the weights do not fit it, or not one of them does.
    """
    there = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        module = build_backbone(backbone, stem=stem, image_size=image_size)
        fit = fit_of(shapes_of(module), there, backbone)
        if fit.misshapen and stem == "standard" and image_size != native_image_size(backbone):
            # Position embeddings may be for the usual size: they are resampled once they are in.
            native = build_backbone(backbone, stem=stem, image_size=native_image_size(backbone))
            native_fit = fit_of(shapes_of(native), there, backbone)
            if len(native_fit.misshapen) < len(fit.misshapen):
                module, fit = native, native_fit
        if not fit.whole and not partial:
            size = "A position embedding of another length is of another --image-size. " if fit.of_another_size else ""
            raise MisfitError(
                f"{origin} does not fit backbone {backbone!r}: {fit.words}. {size}What fits is taken with --partial "
                "(partial=True in Python).",
                fit,
            )
        left = set(fit.random)
        if len(left) >= len(fit.own):
            raise MisfitError(f"{origin} holds nothing that fits backbone {backbone!r}: {fit.words}.", fit)
        own = module.state_dict()
        module.load_state_dict({n: own[n] if n in left else weights.get(n, own[n]) for n in own})
        set_image_size(module, backbone, image_size)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{origin} does not fit backbone {backbone!r}: {error}", topic="which-network") from error
    return module, fit


def shapes_of(module: nn.Module) -> dict[str, Shape]:
    """Names and shapes of a network's tensors."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def prefixes_of(names: Iterable[str], own: Iterable[str]) -> list[str]:
    """What the names of a network's weights begin with in a file, of each network there that has about as many.

    Args:
        names: those in the file.
        own: those of the network.
    """
    known, counts = set(own), Counter[str]()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in known:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    most = max(counts.values(), default=0)
    return [prefix for prefix, count in counts.items() if 2 * count >= most]


@cache
def heads_of(backbone: str) -> frozenset[str]:
    """Names of weights that a timm network has with its classifier only; none where that cannot be told."""
    name = backbone.split(".")[0]
    if not timm.is_model(name):
        return frozenset()
    try:
        with weightless():
            whole, bare = timm.create_model(name), timm.create_model(name, num_classes=0)
    # A few networks look at numbers while they are built.
    except Exception:
        return frozenset()
    return frozenset(whole.state_dict()) - frozenset(bare.state_dict())


def gathered(names: Iterable[str], own: Iterable[str]) -> list[str]:
    """Names, with one for all that a part of the network has where they are all among them, such as `layer4.1.*`."""
    chosen, parts = set(names), Counter[str]()
    for name in own:
        parts.update(_parts_of(name))
    whole = Counter(part for name in chosen for part in _parts_of(name))
    found = [
        next((f"{part}.*" for part in _parts_of(name) if parts[part] == whole[part] > 1), name)
        for name in own
        if name in chosen
    ]
    return list(dict.fromkeys(found))


def _parts_of(name: str) -> list[str]:
    """The modules that a tensor is in, the outermost first."""
    steps = name.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps))]


def some(names: Iterable[str], most: int = MAX_NAMED) -> str:
    """The first of some names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shape(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"
