"""A flag for every setting, made from the config's own fields."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from stopgrad.config import SECTION_OF, SETTINGS
from stopgrad.train.request import AUTO

# The settings people turn most stand first in the help.
_ORDER = ("data", "objective", "network", "training", "optimization", "monitoring", "augmentation")


def whole_number(type_: Any, tokens: Sequence[Token]) -> int:
    """An int as written; the library's own converter would round 3.5 to 4 in silence."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


def whole_number_or_auto(type_: Any, tokens: Sequence[Token]) -> int | str:
    """As `whole_number`, or "auto" as it is."""
    return AUTO if tokens[0].value == AUTO else whole_number(type_, tokens)


def _flag(name: str) -> tuple[str, Any, Any]:
    setting = SETTINGS[name]
    section = SECTION_OF[name]
    choices = setting.metadata["choices"]
    text = setting.metadata["help"]
    if choices and not all(str(c) in text for c in choices):
        text += f" ({', '.join(map(str, choices))})"
    group = Group(section.capitalize(), sort_key=_ORDER.index(section) + 1)
    converter: Any = whole_number if setting.type is int else None
    type_ = setting.type
    if name == "batch_size":
        type_, converter = int | str, whole_number_or_auto
    several = setting.metadata["length"] != (1, 1)
    more: dict[str, Any] = {"consume_multiple": True, "negative": ""} if several else {}
    if setting.type == tuple[str, ...]:
        # One name a flag: what follows may be the data.
        more = {"negative": ""}
    parameter = Parameter(help=text, group=group, converter=converter, **more)
    return name, Annotated[type_ | None, parameter], None  # type: ignore[operator]


Settings = dataclasses.make_dataclass("Settings", [_flag(name) for name in SETTINGS if name != "path"], frozen=True)
# cyclopts flattens no class of the module "types", where make_dataclass puts it on Python 3.11.
Settings.__module__ = __name__


def given_settings(settings: Any) -> dict[str, Any]:
    """The settings that were given as flags."""
    return {name: value for name, value in vars(settings).items() if value is not None}
