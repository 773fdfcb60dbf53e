"""The loggers by name; a logger's module is imported when it starts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType

from stopgrad.errors import ConfigError
from stopgrad.loggers.protocol import Logger


@dataclass(frozen=True)
class Kind:
    """A logger that can be chosen."""

    where: str
    """Its class, as module:class."""
    packages: tuple[str, ...] = ()
    """What has to be installed, beyond what stopgrad needs: the extra of the logger's name."""

    def make(self) -> Logger:
        """Import and make it."""
        module, _, name = self.where.partition(":")
        made: Logger = getattr(import_module(module), name)()
        return made


LOGGERS: Mapping[str, Kind] = MappingProxyType(
    {
        "tensorboard": Kind("stopgrad.loggers.tensorboard:TensorBoard"),
        "wandb": Kind("stopgrad.loggers.wandb:WeightsAndBiases", ("wandb",)),
        "mlflow": Kind("stopgrad.loggers.mlflow:MLflow", ("mlflow", "sqlalchemy", "alembic")),
    }
)


def check_loggers(names: Iterable[str]) -> None:
    """Raise `ConfigError` where a logger's packages are not installed."""
    for name in names:
        packages = LOGGERS[name].packages if name in LOGGERS else ()
        if missing := [package for package in packages if not _is_installed(package)]:
            raise ConfigError(
                f"logger = {name!r} needs {', '.join(missing)}, not installed here: pip install 'stopgrad[{name}]'",
                topic="missing-package",
            )


def _is_installed(package: str) -> bool:
    # A folder of that name in the working directory, as wandb leaves one, is found too, but has no origin.
    found = find_spec(package)
    return found is not None and found.origin is not None
