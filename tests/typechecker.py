"""The runtime type checker of the tests: beartype, taking whole numbers where floats are meant, as PEP 484 does."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
