"""Guides and methods of the user's own, named as "package.module:name" (docs/plugins.md).

The code is imported for training only: an encoder is loaded without it.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from stopgrad.config import Config
from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.methods.protocol import Initial, Method
from stopgrad.objective.guides import GUIDES, Guide, traits_of
from stopgrad.settings import SIAMESE_METHODS, is_plugin

TOLERANCE = 1e-3


def find(setting: str, name: str) -> Callable[..., Any]:
    """Import what `package.module:name` names. The working directory is looked into last.

    Raises:
        ConfigError: no such module or name, a module that fails, or something that cannot be called.
    """
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    # Whatever the module does when it is imported; SystemExit would end the program without a message.
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise ConfigError(
                f"{setting} = {name!r}: there is no module {missing!r}. Start where it lies, or put its folder into "
                "PYTHONPATH."
            ) from error
        raise _failed(f"{setting} = {name!r}: its module fails when it is imported", error) from error
    if not hasattr(module, attribute):
        names = [known for known in vars(module) if not known.startswith("_")]
        raise ConfigError(f"{setting} = {name!r}: {module_name} has no {attribute!r}: {did_you_mean(attribute, names)}")
    found = getattr(module, attribute)
    if not callable(found):
        raise ConfigError(f"{setting} = {name!r} is a {type(found).__name__}: it must be a function or a class.")
    return found


def find_guide(name: str) -> Callable[..., Any]:
    """A guide of ours, or one's own: a function, or a class of modules.

    Raises:
        ConfigError: as for `find`, a class or object of another kind, or attributes that a guide has not.
    """
    if not is_plugin(name):
        return GUIDES[name]
    found = find("guide", name)
    if isinstance(found, nn.Module) or (isinstance(found, type) and not issubclass(found, nn.Module)):
        what = "one module, which runs would share" if isinstance(found, nn.Module) else "no torch.nn.Module"
        raise ConfigError(f"guide = {name!r} is {what}: give a function, or a class of torch.nn.Module.")
    try:
        traits_of(found)
    except ValueError as error:
        raise ConfigError(f"guide = {name!r}: {error}") from error
    return found


def make_guide(config: Config) -> Guide:
    """One's own guide as it is called: a function itself, an instance of a class that is given the config.

    Raises:
        ConfigError: as for `find_guide`, or a class that fails.
    """
    name = config.objective.guide
    found = find_guide(name)
    if not isinstance(found, type):
        return found
    try:
        made: Guide = found(config)
    # Whatever its code raises.
    except Exception as error:
        raise _failed(f"guide = {name!r} cannot be made of a config", error) from error
    return made


def weights_of(name: str, guide: Guide, target: Tensor, partners: Tensor | None, generator: Generator) -> Tensor:
    """What one's own guide gives for targets `[image, view, dim]`, looked at closely.

    Raises:
        ConfigError: it fails, or gives no source weights.
    """
    try:
        weights: Any = guide(target, partners, generator)
    # Whatever its code raises.
    except Exception as error:
        raise _failed(f"guide = {name!r} fails on targets {tuple(target.shape)}", error) from error
    wanted = tuple(target.shape[:2])
    if not isinstance(weights, Tensor) or not weights.is_floating_point() or tuple(weights.shape) != wanted:
        what = f"{weights.dtype} {tuple(weights.shape)}" if isinstance(weights, Tensor) else type(weights).__name__
        raise ConfigError(f"guide = {name!r} gives {what}: needs floating-point weights [image, view] {wanted}.")
    if weights.device != target.device:
        raise ConfigError(f"guide = {name!r} gives weights on {weights.device}: targets are on {target.device}.")
    if not (torch.isfinite(weights).all() and (weights >= 0).all()):
        raise ConfigError(f"guide = {name!r} gives weights that are negative or not finite.")
    sums = weights.sum(dim=1)
    keep = traits_of(guide).keep
    off = float((sums - 1).abs().max() if keep == 1 else (sums.mean() - 1).abs())
    if off > TOLERANCE:
        what = "an image's views" if keep == 1 else f"an image's views, in the mean over the batch (keep = {keep:g})"
        raise ConfigError(
            f"guide = {name!r} gives weights that are off by {off:.3g}: they must sum to one over {what}."
        )
    return weights


def build_own(config: Config, initial: Initial | None = None) -> Method:
    """One's own method of a config, and the backbone's initial weights if not drawn.

    Raises:
        ConfigError: as for `find`, or a function that fails or makes no method.
    """
    name = config.objective.method
    build = find("method", name)
    try:
        method: Any = build(config, initial)
    # Whatever its code raises.
    except Exception as error:
        raise _failed(f"method = {name!r} cannot be built", error) from error
    if not isinstance(method, Method) or not isinstance(getattr(method, "encoder", None), nn.Sequential):
        raise ConfigError(
            f"method = {name!r} makes a {type(method).__name__}: needs a stopgrad.methods.protocol.Method whose "
            "`encoder` is a Sequential of backbone and projector."
        )
    return method


def check_plugins(config: Config) -> None:
    """Import what a config names, so that what cannot be had is said before anything begins; raises `ConfigError`."""
    if is_plugin(config.objective.method):
        find("method", config.objective.method)
    elif config.objective.method in SIAMESE_METHODS:
        find_guide(config.objective.guide)


def guide_without_effect(config: Config, given: Iterable[str]) -> list[str]:
    """As `stopgrad.config.without_effect`, of what one's own guide leaves without effect."""
    o, given = config.objective, set(given)
    if o.method not in SIAMESE_METHODS or not is_plugin(o.guide):
        return []
    traits = traits_of(find_guide(o.guide))
    rules = (
        (not traits.needs_partners, "partners", "looks at no partner (needs_partners)"),
        (traits.sources == "all", "source_first", "may make every view a source (sources)"),
    )
    return [f"{n} has no effect: guide = {o.guide!r} {why}" for off, n, why in rules if off and n in given]


def _failed(what: str, error: BaseException) -> ConfigError:
    """An error that says where the user's code raised."""
    if isinstance(error, ConfigError):
        return ConfigError(f"{what}: {error}")
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return ConfigError(f"{what}: {type(error).__name__}: {error}{where}")
