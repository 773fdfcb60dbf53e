"""Open a data set by its path."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stopgrad.data.decode import Progress
from stopgrad.data.kinds import folders, parquet
from stopgrad.data.kinds.shards import open_shards
from stopgrad.data.pixels import UnreadableImageError
from stopgrad.data.place import check_there
from stopgrad.data.readers.raw import read_raw
from stopgrad.data.shards.place import names_shards
from stopgrad.data.sources import ArraySource, Splits
from stopgrad.errors import DataError
from stopgrad.settings import Data

DIGITS = "scikit-learn's digits"
_DEFAULTS = Data()


@dataclass(frozen=True)
class Kind:
    """One kind of data set that a path can name."""

    fits: Callable[[Path], bool]
    """Whether an existing path is of this kind; nothing is read but names."""
    open: Callable[[Path], Splits]
    """Open it, or raise `DataError`."""


# The first that fits opens it.
KINDS: Sequence[Kind] = (
    Kind(parquet.is_parquet, parquet.open_parquet),
    Kind(Path.is_dir, folders.open_folder),
)


def open_images(path: str | Path, settings: Data = _DEFAULTS, *, progress: Progress | None = None) -> Splits:
    """Open a data set.

    Args:
        path: empty for scikit-learn's handwritten digits; a folder of images, nested by class or flat, with
            `train/` and `test/` inside or not; a parquet file in the Hugging Face image layout, or a folder of them;
            shards (`data/shards/place.py`).
        settings: of shards, where they are kept and how they are shuffled.
        progress: told of shards indexed.

    Raises:
        DataError: nothing there, or nothing in it that is an image.
    """
    if str(path) == "":
        return _digits()
    check_there(path)
    if names_shards(path, streamed=settings.shuffle_buffer > 0):
        return open_shards(str(path), settings, progress)
    root = Path(path).expanduser()
    for kind in KINDS:
        if kind.fits(root):
            return kind.open(root)
    raise DataError(f"{str(path)!r} is nothing that holds images.")


def _digits() -> Splits:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Ink comes in 17 grades, 0 to 16.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(np.arange(len(images)), test_size=360, random_state=0, stratify=digits.target)
    names = [str(n) for n in digits.target_names]
    labels = digits.target.tolist()
    both = [ArraySource(images[i], [labels[j] for j in i], names, "digit") for i in (np.sort(train), np.sort(test))]
    return Splits(DIGITS, *both)


DIGITS_RECIPE = "digits"
_SMALL = 64


def recipe_for(splits: Splits) -> str:
    """The small-machine recipe for images of this kind, judging by the first ones that can be read."""
    if splits.name == DIGITS:
        return DIGITS_RECIPE
    sides = []
    for index in range(min(8, len(splits.train))):
        try:
            sides.append(min(read_raw(splits.train.read(index)).values.shape[:2]))
        except (UnreadableImageError, OSError):
            continue
    return "cifar10_small" if sides and statistics.median(sides) <= _SMALL else "photos_small"
