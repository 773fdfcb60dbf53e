"""Libraries that not everybody needs."""

from importlib.util import find_spec

from stopgrad.errors import ConfigError


def need(module: str, extra: str, what: str = "these images") -> None:
    """Check that a library of an extra is there, without importing it.

    Raises:
        ConfigError: it is not; the message says how to install it.
    """
    if find_spec(module) is None:
        raise ConfigError(
            f"{module} is needed for {what}, and not installed: pip install 'stopgrad[{extra}]'.",
            topic="missing-package",
        )
