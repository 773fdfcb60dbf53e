"""What a text can name as a data set, checked before it is opened; without numpy or torch, so that it takes no time."""

import glob
import os
from pathlib import Path

from stopgrad.data.shards.place import absolute, check_shards, names_shards
from stopgrad.data.shared.extras import need
from stopgrad.errors import ConfigError, DataError, did_you_mean

IN_MEMORY = "images in memory"
"""What a data set is called that came as an `ImageSource`."""
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".npy", ".dcm",
     ".dicom"}
)  # fmt: skip
SET_SUFFIXES = frozenset(
    {".parquet", ".tar", ".zip", ".npy", ".npz", ".h5", ".hdf5", ".lmdb", ".mdb", ".txt", ".csv", ".tsv"}
)
"""Of files that hold a data set."""
EXTRAS = dict.fromkeys((".h5", ".hdf5"), ("h5py", "hdf5")) | dict.fromkeys((".lmdb", ".mdb"), ("lmdb", "lmdb"))
"""Library, and its extra, that a file needs."""
TORCHVISION, HUGGING_FACE, SCIKIT = "torchvision:", "hf:", "sklearn:"
DIGITS, SCATTERED_DIGITS = "scikit-learn's digits", "scikit-learn's digits, scattered"
"""The sets that come with a dependency, as they are called in words."""
SCANS = {"digits": DIGITS, "scattered-digits": SCATTERED_DIGITS}
"""By their names after `sklearn:`."""
DEMONSTRATION = f"{SCIKIT}scattered-digits"
"""What the commands take where no images are given."""
SEVERAL = "::"
WHAT_TO_GIVE = "a folder of images or a file of them (parquet, zip, npz, HDF5, a list of paths ...)"


def is_image(name: str) -> bool:
    """Whether a file's own name is that of an image, and not hidden."""
    return not name.startswith(".") and name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def holds_data_set(file: str | Path) -> bool:
    """Whether a file is a data set and not an image, by its name."""
    return os.path.splitext(file)[1].lower() in SET_SUFFIXES


def is_image_alone(place: str) -> bool:
    """Whether it is an image file, as a pattern matches them."""
    return not holds_data_set(place) and os.path.isfile(place)


def check_there(path: str | Path) -> None:
    """Check that there can be a data set, before it is opened.

    Raises:
        ConfigError: a name that is none, or a library that is not installed.
        DataError: nothing there, or a single image.
    """
    if names_shards(path):
        check_shards(str(path))
        return
    places = expand(path)
    is_itself = places == [os.path.expanduser(path)]
    for place in places:
        if is_named(place):
            check_name(place)
        elif not os.path.exists(place):
            raise DataError(f"{place!r} does not exist: give {WHAT_TO_GIVE}.", topic="no-images")
        elif not is_itself and names_shards(place):
            check_shards(place)
        elif os.path.isfile(place):
            if not holds_data_set(place) and (is_itself or not is_image(os.path.basename(place))):
                raise DataError(f"{place!r} is a single file: give {WHAT_TO_GIVE}.", topic="no-images")
            if extra := EXTRAS.get(os.path.splitext(place)[1].lower()):
                need(*extra, what=repr(place))


def is_named(text: str) -> bool:
    """Whether it is `torchvision:NAME:FOLDER`, `hf:FOLDER` or `sklearn:NAME`, not a path."""
    return text.startswith((TORCHVISION, HUGGING_FACE, SCIKIT)) and not os.path.lexists(text)


def scikit_name(text: str) -> str:
    """What the set that `sklearn:NAME` stands for is called in words.

    Raises:
        ConfigError: another name.
    """
    name = text.removeprefix(SCIKIT)
    if name not in SCANS:
        raise ConfigError(f"{text!r}: {did_you_mean(name, SCANS)}")
    return SCANS[name]


def check_name(text: str) -> tuple[str, str]:
    """Name and folder, either may be empty, of `torchvision:NAME:FOLDER`, `hf:FOLDER` or `sklearn:NAME`.

    Raises:
        ConfigError: a part is missing, or the library is not installed.
        DataError: no such folder.
    """
    if text.startswith(SCIKIT):
        return scikit_name(text), ""
    if text.startswith(TORCHVISION):
        name, _, folder = text.removeprefix(TORCHVISION).partition(":")
        if not name or not folder:
            raise ConfigError(f"{text!r}: needs the form torchvision:NAME:FOLDER, such as torchvision:CIFAR10:data.")
        need("torchvision", "torchvision", what=repr(text))
    else:
        name, folder = "", text.removeprefix(HUGGING_FACE)
        need("datasets", "datasets", what=repr(text))
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        raise DataError(f"{text!r}: {folder!r} is no folder.")
    return name, folder


def expand(path: str | Path) -> list[str]:
    """The paths and names that a text stands for: itself, those between `::`, and what matches a pattern (sorted).

    A text that is itself a path stands for nothing else. A pattern that ends in a suffix matches files of that suffix,
    any other folders and images only; what lies in a folder that it matches too is left out.

    Raises:
        ConfigError: nothing on one side of a `::`.
        DataError: nothing matches a pattern.
    """
    text = str(path)
    whole = os.path.expanduser(text)
    if os.path.lexists(whole):
        return [whole]
    parts = text.split(SEVERAL)
    if len(parts) > 1:
        if not all(parts):
            raise ConfigError(f"{text!r}: nothing stands on one side of '{SEVERAL}'; give a path on each.")
        return [place for part in parts for place in expand(part)]
    if is_named(text) or not glob.has_magic(whole):
        return [whole]
    found = _matches(whole)
    if not found:
        raise DataError(
            f"{text!r} does not exist, and as a pattern it matches no folder and no image.", topic="no-images"
        )
    return found


def _matches(pattern: str) -> list[str]:
    suffix = os.path.splitext(pattern)[1]
    has_suffix = bool(suffix) and not glob.has_magic(suffix)
    kept: dict[str, str] = {}
    for place in sorted(glob.iglob(pattern, recursive=True)):
        if has_suffix or os.path.isdir(place) or is_image(os.path.basename(place)):
            real = os.path.realpath(place)
            if real not in kept and not any(str(outer) in kept for outer in Path(real).parents):
                kept[real] = place.rstrip(os.sep) or os.sep
    return list(kept.values())


def in_full(path: str | Path) -> str:
    """A text that stands for the same data set in another working folder."""
    text = str(path)
    whole = os.path.expanduser(text)
    if not os.path.lexists(whole):
        if SEVERAL in text:
            return SEVERAL.join(in_full(part) for part in text.split(SEVERAL))
        if names_shards(text):
            return absolute(text)
        if text.startswith(SCIKIT):
            return text
        if is_named(text):
            name, _, folder = text.rpartition(":")
            return f"{name}:{os.path.abspath(os.path.expanduser(folder))}"
    return os.path.abspath(whole)
