"""Settings and guides of earlier versions, and what replaces them.

No study found them better than the guides that stayed (docs/guides.md). Files of runs from then still name them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from stopgrad.errors import ConfigError

CANDIDATES = "stopgrad.studies.candidates"
SETTINGS: Mapping[str, tuple[Any, str]] = MappingProxyType(
    {
        "guide_distance": ("raw", "nearest_views_normalised"),
        "guide_softness": (0.0, "soft_in_batch"),
        "guide_softness_schedule": ("constant", "FallingSoftness"),
        "guide_neighbours": (1, "NearestInMemorySkipping"),
        "guide_skip": (0, "NearestInMemorySkipping"),
    }
)
"""Setting -> the value at which it did nothing, and the candidate that shows it."""
GUIDES: Mapping[str, str] = MappingProxyType(
    {
        "nearest_of_all": "nearest_of_all",
        "random_of_all": "random_of_all",
        "nearest_in_batch": "nearest_in_batch",
        "nearest_in_memory": "NearestInMemory",
    }
)
"""Guide -> the candidate that it is now."""


def removed_words(name: str, value: Any = None) -> str:
    """What became of a setting, or of a setting's value; empty where nothing has been removed."""
    if name in SETTINGS:
        what, candidate = name, SETTINGS[name][1]
    elif name == "guide" and value in GUIDES:
        what, candidate = f"guide = {value!r}", GUIDES[value]
    elif (name, value) == ("guide_keep_by", "hard"):
        what, candidate = f"guide_keep_by = {value!r}", "hard_half"
    else:
        return ""
    return (
        f"{what} was removed: no study found it better than what stayed. It is a plug-in now: guide = "
        f"'{CANDIDATES}:{candidate}', or one of your own (docs/plugins.md). A run that was begun with it "
        "cannot be resumed; its encoder still loads."
    )


def without_removed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file, less those removed ones that did nothing.

    Raises:
        ConfigError: a removed setting at another value.
    """
    for name, (idle, _) in SETTINGS.items():
        if settings.get(name, idle) != idle:
            raise ConfigError(removed_words(name))
    return {name: value for name, value in settings.items() if name not in SETTINGS}


def to_look_at(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an earlier run for those who look at it and do not train: what was removed is left out.

    A removed guide goes by the name of the candidate that it is now.
    """
    kept = {name: value for name, value in settings.items() if name not in SETTINGS}
    if kept.get("guide") in GUIDES:
        kept["guide"] = f"{CANDIDATES}:{GUIDES[kept['guide']]}"
        kept = {name: value for name, value in kept.items() if name not in ("guide_keep", "guide_keep_by")}
    if kept.get("guide_keep_by") == "hard":
        kept["guide_keep_by"] = "random"
    return kept
