"""Studies: many small pretrainings that answer one question, over several seeds."""

from collections.abc import Mapping
from types import MappingProxyType

from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.studies import transfer
from stopgrad.studies.questions import (
    accuracy,
    adapt,
    batch_size,
    claims,
    guide,
    multicrop,
    no_predictor,
    rivals,
    stability,
)
from stopgrad.studies.study import Study

STUDIES: Mapping[str, Study] = MappingProxyType(
    {
        study.name: study
        for study in (
            accuracy.STUDY,
            no_predictor.STUDY,
            batch_size.STUDY,
            guide.STUDY,
            stability.STUDY,
            rivals.STUDY,
            transfer.STUDY,
            claims.STUDY,
            claims.RATES_STUDY,
            adapt.STUDY,
            adapt.RATES_STUDY,
            multicrop.STUDY,
        )
    }
)


def study_of(name: str) -> Study:
    """The study of a name.

    Raises:
        ConfigError: no study of that name.
    """
    if name not in STUDIES:
        raise ConfigError(f"unknown study {name!r}: {did_you_mean(name, STUDIES)}")
    return STUDIES[name]
