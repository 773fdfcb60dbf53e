"""Open a data set by its path."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stopgrad.data.decode import Progress
from stopgrad.data.kinds import (
    folders,
    hdf5,
    huggingface,
    lists,
    lmdb_files,
    numpy_files,
    parquet,
    scans,
    shards,
    torch_datasets,
    zips,
)
from stopgrad.data.pixels import UnreadableImageError
from stopgrad.data.place import (
    DIGITS,
    HUGGING_FACE,
    SCATTERED_DIGITS,
    SCIKIT,
    TORCHVISION,
    check_there,
    expand,
    is_image_alone,
    is_named,
)
from stopgrad.data.readers.raw import read_raw
from stopgrad.data.shards.place import names_shards
from stopgrad.data.shared.joined import join
from stopgrad.data.sources import Splits
from stopgrad.errors import DataError
from stopgrad.settings import Data

DEFAULTS = Data()


@dataclass(frozen=True)
class Kind:
    """One kind of data set that a path can name."""

    fits: Callable[[Path], bool]
    """Whether an existing path is of this kind; nothing is read but names."""
    open: Callable[[Path], Splits]
    """Open it, or raise `DataError`."""


def _file(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.suffix.lower() in suffixes


# The first that fits opens it.
KINDS: Sequence[Kind] = (
    Kind(parquet.is_parquet, parquet.open_parquet),
    Kind(lmdb_files.is_lmdb, lmdb_files.open_lmdb),
    Kind(Path.is_dir, folders.open_folder),
    Kind(_file(".zip"), zips.open_zip),
    Kind(_file(".npy"), numpy_files.open_npy),
    Kind(_file(".npz"), numpy_files.open_npz),
    Kind(_file(".h5", ".hdf5"), hdf5.open_hdf5),
    Kind(_file(".txt", ".csv", ".tsv"), lists.open_list),
)
# What is no path, by how it begins.
NAMED: Mapping[str, Callable[[str], Splits]] = {
    TORCHVISION: torch_datasets.open_torchvision,
    HUGGING_FACE: huggingface.open_saved,
    SCIKIT: scans.open_scans,
}


def open_images(path: str | Path, settings: Data = DEFAULTS, *, progress: Progress | None = None) -> Splits:
    """Open a data set.

    Args:
        path: empty for scikit-learn's handwritten digits; a folder of images, nested by class or flat, with
            `train/` and `test/` inside or not; a file of images, a list of them or a name (docs/data.md); a pattern,
            or several of these with `::` between them, which are joined by the names of their classes.
        settings: of shards, where they are kept and how they are shuffled.
        progress: told of shards indexed.

    Raises:
        ConfigError: a name that is none, or a library that is not installed.
        DataError: nothing there, or nothing in it that is an image.
    """
    if str(path) == "":
        return scans.open_scans()
    check_there(path)
    streamed = settings.shuffle_buffer > 0
    if names_shards(path, streamed=streamed):
        return shards.open_shards(str(path), settings, progress)
    places = expand(path)
    if len(places) == 1:
        return _open_one(places[0])
    images: list[str] = []
    parts: list[Splits] = []
    for place in places:
        if is_image_alone(place):
            images.append(place)
        elif names_shards(place, streamed=streamed):
            parts.append(shards.open_shards(place, settings, progress))
        else:
            parts.append(_open_one(place))
    if images:
        parts.insert(0, Splits(str(path), folders.FileSource(images)))
    return join(str(path), parts)


def _open_one(place: str) -> Splits:
    if is_image_alone(place):
        return Splits(place, folders.FileSource([place]))
    if is_named(place):
        return next(opened(place) for prefix, opened in NAMED.items() if place.startswith(prefix))
    root = Path(place)
    for kind in KINDS:
        if kind.fits(root):
            return kind.open(root)
    raise DataError(f"{place!r} is nothing that holds images.")


SCANS_RECIPES = {DIGITS: "digits", SCATTERED_DIGITS: "scattered_digits"}
"""Of the sets that come with a dependency."""
_SMALL = 64


def recipe_for(splits: Splits) -> str:
    """The small-machine recipe for images of this kind, judging by the first ones that can be read."""
    if splits.name in SCANS_RECIPES:
        return SCANS_RECIPES[splits.name]
    sides = []
    for index in range(min(8, len(splits.train))):
        try:
            sides.append(min(read_raw(splits.train.read(index)).values.shape[:2]))
        except (UnreadableImageError, OSError):
            continue
    return "cifar10_small" if sides and statistics.median(sides) <= _SMALL else "photos_small"
