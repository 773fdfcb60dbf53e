"""Studies: many small pretrainings that answer one question, with spread."""

from collections.abc import Mapping
from types import MappingProxyType

from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.studies import batch_size, guide, main, no_predictor, rivals, stability, transfer
from stopgrad.studies.study import Study

STUDIES: Mapping[str, Study] = MappingProxyType(
    {module.STUDY.name: module.STUDY for module in (main, no_predictor, batch_size, guide, stability, rivals, transfer)}
)


def study_of(name: str) -> Study:
    """The study of a name.

    Raises:
        ConfigError: no study of that name.
    """
    if name not in STUDIES:
        raise ConfigError(f"unknown study {name!r}: {did_you_mean(name, STUDIES)}")
    return STUDIES[name]
