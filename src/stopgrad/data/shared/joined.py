"""Several data sets as one, their classes matched by name."""

import bisect
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stopgrad.data.shared.labels import renumber
from stopgrad.data.sources import ImageSource, LabelledSource, Splits, all_labels, damaged_of


class JoinedSource(LabelledSource):
    """The images of several sources, one source after another."""

    def __init__(self, sources: Sequence[ImageSource], class_names: Sequence[str]) -> None:
        labels = [renumber(all_labels(source), source.class_names, class_names) for source in sources]
        super().__init__(np.concatenate(labels) if class_names else (), class_names)
        self.sources = sources
        self._starts = np.cumsum([0] + [len(source) for source in sources]).tolist()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, index: int) -> tuple[ImageSource, int]:
        number = bisect.bisect_right(self._starts, index) - 1
        return self.sources[number], index - self._starts[number]

    def read(self, index: int) -> Any:
        """As its source has it."""
        source, place = self._at(index)
        return source.read(place)

    def name(self, index: int) -> str:
        """As its source has it."""
        source, place = self._at(index)
        return source.name(place)

    @property
    def damaged(self) -> Mapping[str, str]:
        """As its sources have it."""
        return {name: reason for source in self.sources for name, reason in damaged_of(source).items()}

    def cache_key(self) -> str | None:
        """Those of the sources; None where one has none."""
        digest = hashlib.sha256()
        for source in self.sources:
            own = getattr(source, "cache_key", None)
            key = own() if own is not None else None
            if key is None:
                return None
            digest.update(f"{len(source)} {key}\n".encode())
        return digest.hexdigest()


def join(name: str, parts: Sequence[Splits]) -> Splits:
    """Training images with training images, test images with test images; classes of one name are one class."""
    if len(parts) == 1:
        return parts[0]
    train = [part.train for part in parts]
    test = [part.test for part in parts if part.test is not None]
    class_names = sorted({class_name for source in train for class_name in source.class_names})
    return Splits(name, JoinedSource(train, class_names), JoinedSource(test, class_names) if test else None)
