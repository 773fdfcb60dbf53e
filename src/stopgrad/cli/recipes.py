"""stopgrad recipes: recipes and augmentation presets."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from stopgrad.cli.shared.console import print_json
from stopgrad.config import to_toml
from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.presets import PRESETS, preset_of, preset_toml
from stopgrad.recipes import RECIPES


def recipes(name: str | None = None, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the recipes and the presets of augmentation, or show one: its claim and its settings as TOML.

    Parameters
    ----------
    name
        The recipe or preset to show.
    json
        Print one JSON object.
    """
    if name is None:
        claims = {key: inspect.getdoc(recipe) or "" for key, recipe in RECIPES.items()}
        if json:
            print_json(claims)
            return
        presets = {key: inspect.getdoc(preset) or "" for key, preset in PRESETS.items()}
        width = max(map(len, [*claims, *presets]))
        for title, listed in (("Recipes, --recipe NAME", claims), ("Augmentation, --augmentation NAME", presets)):
            lines = [f"{key:{width}}  {claim.splitlines()[0]}" for key, claim in listed.items()]
            sys.stdout.write("\n".join([title, *lines]) + "\n\n")
        sys.stdout.write("stopgrad recipes NAME shows the claim and settings of either.\n")
        return
    known = name.replace("-", "_")
    if known in PRESETS:
        preset = preset_of(known)
        _show(known, PRESETS[known], preset, preset_toml(preset), json=json)
        return
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}: {did_you_mean(name, [*RECIPES, *PRESETS])}")
    config = RECIPES[name]()
    _show(name, RECIPES[name], config.flat(), to_toml(config), json=json)


def _show(name: str, made_by: Callable[[], Any], settings: Mapping[str, Any], toml: str, *, json: bool) -> None:
    claim = inspect.getdoc(made_by) or ""
    if json:
        print_json({"name": name, "claim": claim, "settings": settings})
        return
    comment = "".join(f"# {line}".rstrip() + "\n" for line in claim.splitlines())
    sys.stdout.write(f"{comment}\n{toml}")
