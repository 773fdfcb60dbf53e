"""The images of a data set that are taken: one of its splits or both, one after the other."""

import bisect
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.data.decode import decode
from stopgrad.data.pixels import UnreadableImageError
from stopgrad.data.place import in_full
from stopgrad.data.python import as_source, as_splits, is_one_image
from stopgrad.data.shards.order import layout_of
from stopgrad.data.sources import ImageSource, Splits, Subset, damaged_of
from stopgrad.errors import ConfigError, did_you_mean

SPLITS = ("all", "train", "test")


class Parts:
    """Parts of a data set as one source; names of classes and their numbers are those of the first."""

    def __init__(self, name: str, parts: Sequence[tuple[str | None, ImageSource]], path: str | None = None) -> None:
        self.name_of_set, self.parts, self.path = name, parts, path
        self.class_names: Sequence[str] = parts[0][1].class_names
        self.starts = np.cumsum([0] + [len(source) for _, source in parts]).tolist()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _at(self, index: int) -> tuple[str | None, ImageSource, int]:
        part = bisect.bisect_right(self.starts, index) - 1
        split, source = self.parts[part]
        return split, source, index - self.starts[part]

    def read(self, index: int) -> Any:
        """As its part has it."""
        _, source, place = self._at(index)
        return source.read(place)

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        _, source, place = self._at(index)
        return source.label(place)

    def name(self, index: int) -> str:
        """As its part has it."""
        _, source, place = self._at(index)
        return source.name(place)

    @property
    def damaged(self) -> Mapping[str, str]:
        """As its parts have it."""
        return {name: reason for _, source in self.parts for name, reason in damaged_of(source).items()}

    def split(self, index: int) -> str | None:
        """`train` or `test`; None where there are no splits."""
        return self._at(index)[0]

    def __str__(self) -> str:
        return in_words(self.name_of_set, [split for split, _ in self.parts])

    def digest(self) -> str:
        """Another one whenever the images are others: of the files' paths, sizes and times, else of all their content.

        Files that were only moved or copied give another one as well; see `is_listed`.
        """
        digest = hashlib.sha256()
        for split, source in self.parts:
            key = _listing_of(source) or _content_digest(source)
            digest.update(f"{split}\0{len(source)}\0{key}\0{list(source.class_names)}\n".encode())
        return digest.hexdigest()

    def is_listed(self) -> bool:
        """Whether the digest is of a listing, and not of the images' content."""
        return any(_listing_of(source) is not None for _, source in self.parts)


def open_parts(images: Any, split: str = "all") -> Parts:
    """Open the images to take.

    Args:
        images: a data set as `as_splits` takes it (an empty path: scikit-learn's digits), or an image file.
        split: `train`, `test` or `all` of it; a data set without splits has training images only.

    Raises:
        ConfigError: no such split, or the data set has no test images.
        DataError: nothing there, or nothing in it that is an image.
    """
    check_split(split)
    path = None
    if isinstance(images, (str, Path)):
        # As it will be found from another folder.
        path = in_full(images) if str(images) else ""
    if isinstance(images, (str, Path)) and is_one_image(images):
        splits = Splits(Path(images).name, as_source(images))
    else:
        splits = as_splits(images)
    if splits.test is None:
        if split == "test":
            raise ConfigError(f"split = 'test': {splits.name} has no test images of its own; use all.")
        return Parts(splits.name, [(None, splits.train)], path)
    both: list[tuple[str | None, ImageSource]] = [("train", splits.train), ("test", splits.test)]
    return Parts(splits.name, [part for part in both if split in ("all", part[0])], path)


def in_words(name: str, splits: Sequence[str | None]) -> str:
    """A data set and the splits of it that are meant."""
    words = {"train": "training", "test": "test"}
    known = [words[split] for split in splits if split is not None]
    return f"{name} ({' and '.join(known)} images)" if known else name


def check_split(split: str) -> None:
    """Raise `ConfigError` for what is no split."""
    if split not in SPLITS:
        raise ConfigError(f"split = {split!r} is unknown: {did_you_mean(split, SPLITS)}")


def _listing_of(source: ImageSource) -> str | None:
    key: str | None = source.cache_key() if hasattr(source, "cache_key") else None
    return key


def _content_digest(source: ImageSource) -> str:
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(f"{source.name(index)}\0{source.label(index)}\0".encode("utf-8", "backslashreplace"))
        try:
            data: Any = source.read(index)
            if not isinstance(data, bytes):
                data = data if isinstance(data, np.ndarray) else decode(data)
                digest.update(f"{data.shape} {data.dtype}\0".encode())
            digest.update(hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).digest())
        except (OSError, UnreadableImageError) as error:
            digest.update(str(error).encode())
    return digest.hexdigest()


def hold_out(train: ImageSource, num: int) -> tuple[Subset, Subset]:
    """The images that stay, and `num` that are taken out: always the same ones, so that seeds can be compared.

    They are drawn at random; of a set that is read shard by shard they are the last ones.

    Raises:
        ConfigError: there are not more than `num`.
    """
    if num >= len(train):
        raise ConfigError(f"holdout = {num}: there are only {len(train)} training images.", topic="too-few-images")
    if layout_of(train) is not None:
        # Whole shards but for one: held-out images among the others would be fetched with them.
        stay = len(train) - num
        return Subset(train, range(stay)), Subset(train, range(stay, len(train)))
    # A seed of its own, so that runs of different seeds hold out the same images.
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(train))
    return Subset(train, np.sort(order[num:]).tolist()), Subset(train, np.sort(order[:num]).tolist())
