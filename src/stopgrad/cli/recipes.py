"""stopgrad recipes."""

import inspect
import sys
from typing import Annotated

from cyclopts import Parameter

from stopgrad.cli.shared.console import print_json
from stopgrad.config import to_toml
from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.recipes import RECIPES


def recipes(name: str | None = None, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the recipes, or show one: its claim and its settings as TOML.

    Parameters
    ----------
    name
        The recipe to show.
    json
        Print one JSON object.
    """
    if name is None:
        claims = {key: inspect.getdoc(recipe) or "" for key, recipe in RECIPES.items()}
        if json:
            print_json(claims)
            return
        width = max(map(len, claims))
        for key, claim in claims.items():
            sys.stdout.write(f"{key:{width}}  {claim.splitlines()[0]}\n")
        sys.stdout.write("\nstopgrad recipes NAME shows a recipe's claim and settings.\n")
        return
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}: {did_you_mean(name, RECIPES)}")
    claim, config = inspect.getdoc(RECIPES[name]) or "", RECIPES[name]()
    if json:
        print_json({"name": name, "claim": claim, "settings": config.flat()})
        return
    comment = "".join(f"# {line}".rstrip() + "\n" for line in claim.splitlines())
    sys.stdout.write(f"{comment}\n{to_toml(config)}")
