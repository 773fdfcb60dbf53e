"""Methods: what one training step computes.

To add a method: a module here, a line in `METHODS`, a name in `settings.METHOD_NAMES`, and a recipe. One of the user's
own is a plug-in and needs none of them (docs/plugins.md).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from stopgrad.config import Config
from stopgrad.methods.dino import build_dino
from stopgrad.methods.moco import build_moco
from stopgrad.methods.plugins import build_own
from stopgrad.methods.protocol import Initial, Method
from stopgrad.methods.siamese import build_siamese
from stopgrad.methods.two_views import build_two_views
from stopgrad.settings import is_plugin


class BuildMethod(Protocol):
    """From a config, and the backbone's initial weights if not drawn, to a method."""

    def __call__(self, config: Config, initial: Initial | None = None) -> Method:
        """Build it."""
        ...


METHODS: Mapping[str, BuildMethod] = MappingProxyType(
    {
        "simsiam": build_siamese,
        "byol": build_siamese,
        "simclr": build_two_views,
        "moco": build_moco,
        "barlow_twins": build_two_views,
        "vicreg": build_two_views,
        "dino": build_dino,
    }
)


def build(config: Config, initial: Initial | None = None) -> Method:
    """The method of a config, ours or one's own.

    Raises:
        ValueError: a backbone that does not exist, or initial weights that do not fit it.
        ConfigError: a guide or method of one's own that cannot be had or made.
    """
    name = config.objective.method
    return (build_own if is_plugin(name) else METHODS[name])(config, initial)
