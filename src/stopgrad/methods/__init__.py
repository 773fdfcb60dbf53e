"""Methods: what one training step computes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from stopgrad.config import Config
from stopgrad.methods.protocol import Method
from stopgrad.methods.siamese import build_siamese

METHODS: Mapping[str, Callable[[Config], Method]] = MappingProxyType({"simsiam": build_siamese, "byol": build_siamese})
