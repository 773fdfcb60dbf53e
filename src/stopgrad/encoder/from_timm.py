"""Encoders of timm's networks with the weights that timm, or a package, has of them."""

from typing import Any

from torch import nn

from stopgrad.encoder.encoder import Encoder, encoder_of
from stopgrad.errors import CheckpointError, did_you_mean
from stopgrad.loader.preprocess import eval_resize
from stopgrad.nets.backbones import SMALL_RESNETS, build_backbone, native_image_size, num_features
from stopgrad.weights.conventions import Usual, usual_of
from stopgrad.weights.fit import fill
from stopgrad.weights.options import IMAGENET_MEAN, IMAGENET_STD, PACKAGE, TIMM, LoadOptions
from stopgrad.weights.packages import INSTALL, PACKAGES, file_of, package_of, package_words, read_package
from stopgrad.weights.timm_weights import Located, elsewhere, locate, overlay_of, quiet_libraries


def from_timm(name: str, options: LoadOptions) -> Encoder:
    """A network of timm, or one of our small ResNets, as `timm:NAME`.

    Args:
        name: with the tag of its weights or without.
        asked: whether with its weights.

    Raises:
        CheckpointError: no such network, or its weights do not exist or cannot be fetched.
    """
    place = f"{TIMM}{name}"
    try:
        if options.pretrained is False:
            backbone = build_backbone(name, image_size=native_image_size(name))
            return _encoder(name, backbone, f"{place} (untrained)")
        located = locate(name)
        if located.package is not None:
            return _packaged(name, located, place)
        return _encoder(name, _fetched(name, located), place)
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(f"{place}: {error}") from error


def from_package(name: str, _options: LoadOptions) -> Encoder:
    """A network with the weights of an installed package, as `package:NAME`.

    Raises:
        CheckpointError: no package of such a network is known, or it is not installed.
    """
    found = package_of(name)
    if found is None:
        raise CheckpointError(
            f"{PACKAGE}{name}: no package with weights of it is known: {did_you_mean(name, PACKAGES)} timm's own: "
            f"{TIMM}NAME."
        )
    known, package = found
    file = file_of(package)
    if file is None:
        raise CheckpointError(
            f"{PACKAGE}{name}: the package {package.distribution} is not installed: {INSTALL}.", topic="no-weights"
        )
    return _packaged(known, Located("package", file, package), f"{PACKAGE}{known}")


def _packaged(name: str, located: Located, place: str) -> Encoder:
    assert located.package is not None
    assert located.file is not None
    weights = read_package(name.partition(".")[0], located.package, located.file)
    backbone, _ = fill(name, "standard", native_image_size(name), weights, str(located.file), partial=False)
    return _encoder(name, backbone, f"{place} (weights of the package {package_words(located.package)})")


def _fetched(name: str, located: Located) -> nn.Module:
    """Built by timm, with the weights that it has or fetches."""
    overlay = overlay_of(name, located)
    try:
        with quiet_libraries():
            backbone: Any = build_backbone(name, image_size=native_image_size(name), pretrained=True, overlay=overlay)
    # Of huggingface_hub, of two HTTP libraries, of safetensors.
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        if located.place == "network":
            why = why.removeprefix(f"backbone {name!r}: its weights cannot be fetched: ")
            raise CheckpointError(
                f"its weights cannot be fetched: {why}; and {elsewhere(name)}", topic="no-weights"
            ) from error
        raise CheckpointError(f"{located.file} in the cache cannot be used: {why} Delete it.") from error
    # It may hold the weights a second time.
    backbone.pretrained_cfg.pop("state_dict", None)
    module: nn.Module = backbone
    return module


def _encoder(name: str, backbone: nn.Module, origin: str) -> Encoder:
    size = 32 if name in SMALL_RESNETS else 224
    usual = usual_of(name) or Usual(size, eval_resize(size), IMAGENET_MEAN, IMAGENET_STD)
    return encoder_of(backbone, usual.spec(name, "standard", num_features(backbone), LoadOptions()), origin)
