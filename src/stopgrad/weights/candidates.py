"""Which of timm's networks match the shapes of given weights.

Every network is begun on torch's meta device, where nothing is allocated, and given up at the first weights that the
file has no equal of: of more than a thousand networks a handful are built to their end, in a second or two.
"""

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident

import timm
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from stopgrad.weights.fit import Fit, Shape, fit_of, prefixes_of, shapes_of, weightless

# Of processor time.
SECONDS = 10.0
# A network may make weights while it is built that it does not keep: a tiny layer to look at (timm's EfficientNets),
# position embeddings for fewer tokens (DeiT's distilled networks), a classifier of its stem (hybrids).
TINY = 64
MOST_MISFITS = 2
MOST_NEAREST = 3
LEAST_LIKENESS = 0.5


@dataclass(frozen=True)
class Candidates:
    """What was found."""

    fitting: tuple[str, ...]
    """Names of the networks that the weights fit, heads aside."""
    nearest: tuple[tuple[str, Fit], ...]
    """Where none fits, the networks most like it and what does not fit."""
    whole: bool
    """Whether all networks were tried in the time there was."""


def candidates_for(tensors: Mapping[str, Tensor]) -> Candidates:
    """Try all of timm's networks on a file's tensors, whatever their names begin with; a few seconds."""
    return _candidates(tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items()))


# A run loads its initial weights more than once.
@lru_cache(maxsize=8)
def _candidates(tensors: tuple[tuple[str, Shape], ...]) -> Candidates:
    there = dict(tensors)
    until = time.thread_time() + SECONDS
    for most in (0, MOST_MISFITS):
        built, whole = _built_like(Counter(there.values()), most, until)
        # Not while building is watched, because names of heads are found by building as well.
        found = [(name, *_best_fit(own, there, name)) for name, own in built.items()]
        fitting = tuple(name for name, _, fit in found if fit.whole)
        if fitting or not whole:
            break
    found.sort(key=lambda one: (-one[1], len(one[0])))
    nearest = [(name, fit) for name, likeness, fit in found if likeness >= LEAST_LIKENESS]
    return Candidates(fitting, () if fitting else tuple(nearest[:MOST_NEAREST]), whole)


def _built_like(shapes: Counter[Shape], most: int, until: float) -> tuple[dict[str, dict[str, Shape]], bool]:
    """The networks with that many weights of other shapes at most, and whether all were tried in the time."""
    built: dict[str, dict[str, Shape]] = {}
    with _meta_building(most) as build:
        for name in timm.list_models():
            if time.thread_time() > until:
                return built, False
            if (own := build(name, shapes)) is not None:
                built[name] = own
    return built, True


def _best_fit(own: Mapping[str, Shape], there: Mapping[str, Shape], name: str) -> tuple[float, Fit]:
    """The share of names and shapes that a network and the weights have in common, and the fit."""
    found = []
    for prefix in prefixes_of(there, own) or [""]:
        here = {n.removeprefix(prefix): shape for n, shape in there.items() if n.startswith(prefix)}
        common = sum(here.get(n) == shape for n, shape in own.items())
        found.append((common / len(own), prefix, here))
    likeness, _, here = max(found, key=lambda one: (one[0], -len(one[1])))
    return likeness, fit_of(own, here, name)


class _MisfitError(Exception):
    """A network that has weights of other shapes."""


class _Builder:
    """Builds networks as long as their weights are among given shapes, but for a few."""

    def __init__(self, most: int) -> None:
        self._left, self._misfits, self._most = Counter[Shape](), 0, most
        self._thread = get_ident()

    def __call__(self, name: str, shapes: Counter[Shape]) -> dict[str, Shape] | None:
        """Names and shapes of a network's tensors; None once it is plain that it is another."""
        self._left, self._misfits = Counter(shapes), 0
        try:
            return shapes_of(timm.create_model(name, num_classes=0))
        # Most by _MisfitError; and a few networks look at numbers while they are built, which meta tensors have not.
        except Exception:
            return None

    def registered(self, _module: nn.Module, _name: str, parameter: Tensor) -> None:
        """What torch calls for each parameter, in whatever thread."""
        if get_ident() != self._thread:
            return
        shape = tuple(parameter.shape)
        self._left[shape] -= 1
        self._misfits += self._left[shape] < 0 and parameter.numel() > TINY
        if self._misfits > self._most:
            raise _MisfitError


@contextmanager
def _meta_building(most: int) -> Iterator[_Builder]:
    builder = _Builder(most)
    hook = register_module_parameter_registration_hook(builder.registered)
    try:
        with weightless(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield builder
    finally:
        hook.remove()
