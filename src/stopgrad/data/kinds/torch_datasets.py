"""Map-style data sets of PyTorch: those of torchvision on disk, by name, and any as an object."""

import inspect
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.data.kinds.folders import FileSource
from stopgrad.data.place import check_name
from stopgrad.data.shared.labels import number_labels
from stopgrad.data.shared.layout import TEST_NAMES
from stopgrad.data.shared.pixels import as_image
from stopgrad.data.sources import ImageSource, LabelledSource, Splits, Subset
from stopgrad.errors import ConfigError, DataError, did_you_mean

_IMAGE_KEYS = ("image", "img", "pixel_values", "x")
_LABEL_KEYS = ("label", "labels", "target", "y")
# Where torchvision's data sets have the label of each image, and with the path of each.
_LABELS = ("targets", "labels", "_labels", "y")
_SAMPLES = ("samples", "_samples", "imgs")
_FILES = ("_image_files", "_images")
_TRAIN_SPLITS = ("train", "trainval")
# They unpickle a file of the folder without looking at its checksum.
_UNPICKLING = ("LSUN", "LSUNClass")


class DatasetSource(LabelledSource):
    """Items that are an image, a pair of image and label, or a mapping of both.

    Labels are taken from `targets` or `labels` where the data set has them; else each item is read once for its label.
    One item is read at a time: nothing says that a data set may be used by several threads.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset, self._lock = dataset, threading.Lock()
        values = _known_labels(dataset)
        if values is None:
            values = self._read_labels()
        super().__init__(*_numbered(values, dataset))

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, index: int) -> Any:
        """The encoded image, a Pillow image, or pixels with the channels last.

        Raises:
            OSError: the item cannot be had, or holds no image.
        """
        image, _ = self._item(index)
        return as_image(image)

    def name(self, index: int) -> str:
        """Its place in the data set."""
        return f"{type(self._dataset).__name__} {index}"

    def _item(self, index: int) -> tuple[Any, Any]:
        try:
            with self._lock:
                item = self._dataset[index]
        except OSError:
            raise
        # Whatever the caller's data set raises.
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        if isinstance(item, Mapping):
            return _first_of(item, _IMAGE_KEYS), _first_of(item, _LABEL_KEYS)
        if isinstance(item, (tuple, list)):
            return item[0], item[1] if len(item) > 1 else None
        return item, None

    def _read_labels(self) -> list[Any]:
        values = []
        for index in range(len(self._dataset)):
            try:
                value = _plain(self._item(index)[1])
            except OSError:
                value = None
            if index == 0 and value is None:
                return []
            values.append(value)
        return values


def _numbered(values: list[Any], dataset: Any) -> tuple[np.ndarray, list[str]]:
    """Labels by the names of classes, where the data set has names for all of them."""
    names = [str(name) for name in getattr(dataset, "classes", ())]
    if not all(isinstance(value, int) for value in values) or max(values, default=0) >= len(names):
        names = []
    return number_labels(values, names)


def _first_of(item: Mapping[Any, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if key in item), None)


def _plain(label: Any) -> int | str | None:
    if getattr(label, "ndim", None) == 0:
        label = label.item()
    return label if isinstance(label, (int, str)) and not isinstance(label, bool) else None


def _known_labels(dataset: Any) -> list[Any] | None:
    """Labels that the data set has besides its items; None if there are none such."""
    from torch.utils.data import Subset as TorchSubset
    from torch.utils.data import TensorDataset

    if isinstance(dataset, TorchSubset):
        values = _known_labels(dataset.dataset)
        return None if values is None else [values[index] for index in dataset.indices] if values else []
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1].tolist() if len(dataset.tensors) > 1 and dataset.tensors[1].ndim == 1 else []
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in _SAMPLES:
        pairs = getattr(dataset, name, None)
        if isinstance(pairs, list) and len(pairs) == len(dataset) and all(len(pair) == 2 for pair in pairs):
            return [_plain(label) for _, label in pairs]
    for name in _LABELS:
        values = getattr(dataset, name, None)
        if values is not None and hasattr(values, "__len__") and len(values) == len(dataset):
            array = np.asarray(values)
            return array.tolist() if array.ndim == 1 and array.dtype.kind in "iuU" else []
    return None


def open_torchvision(text: str) -> Splits:
    """`torchvision:NAME:FOLDER`: a class of `torchvision.datasets` and its root; nothing is downloaded.

    Raises:
        ConfigError: torchvision is not installed, or has no such data set of images.
        DataError: it is not in the folder.
    """
    name, folder = check_name(text)
    from torchvision import datasets

    if name not in datasets.__all__:
        raise ConfigError(f"{text!r}: torchvision has no data set {name!r}: {did_you_mean(name, datasets.__all__)}")
    if name in _UNPICKLING:
        raise ConfigError(
            f"{text!r}: torchvision's {name} unpickles a file of the folder, which could run any code: give its "
            f"databases themselves, such as {folder}/bedroom_train_lmdb."
        )
    made = getattr(datasets, name)
    parameters = inspect.signature(made).parameters
    if "train" in parameters:
        return Splits(name, _opened(text, made, folder, train=True), _opened(text, made, folder, train=False))
    if "split" not in parameters:
        return Splits(name, _opened(text, made, folder))
    train = _first_split(text, made, folder, _TRAIN_SPLITS)
    if train is None:
        raise ConfigError(f"{text!r}: {name} has no split 'train': open it in Python and give the object.")
    return Splits(name, train, _first_split(text, made, folder, TEST_NAMES))


def _first_split(text: str, made: Any, folder: str, splits: Sequence[str]) -> ImageSource | None:
    """The first of the splits that the class knows, which is for the class to say."""
    for split in splits:
        try:
            return _opened(text, made, folder, split=split)
        except ConfigError:
            continue
    return None


def _opened(text: str, made: Any, folder: str, **split: Any) -> ImageSource:
    given = "".join(f", {name}={value!r}" for name, value in split.items())
    try:
        dataset = made(folder, **split)
        source = source_of(dataset)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f'{text!r} is not there ({_first_line(error)}). Once: python -c "from torchvision.datasets import '
            f'{made.__name__} as d; d({folder!r}{given}, download=True)"; data sets that torchvision does not download '
            "are to be placed as it describes."
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{text!r}: torchvision's {made.__name__} says: {_first_line(error)}") from error
    # A library that the class needs, or whatever damaged files make it raise.
    except Exception as error:
        raise DataError(f"{text!r} cannot be opened: {type(error).__name__}: {error}.") from error
    if not len(source):
        raise DataError(f"{text!r} holds no images.")
    return source


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def source_of(dataset: Any) -> ImageSource:
    """A data set as a source: its files where it is a list of files, as `ImageFolder` is; else its items."""
    from torch.utils.data import Subset as TorchSubset

    if isinstance(dataset, TorchSubset):
        return Subset(source_of(dataset.dataset), [int(index) for index in dataset.indices])
    files = _files_of(dataset)
    return (
        DatasetSource(dataset)
        if files is None
        else FileSource(files, *_numbered(_known_labels(dataset) or [], dataset))
    )


def _files_of(dataset: Any) -> list[str | Path] | None:
    """The paths of a data set of torchvision that only opens a file for each item."""
    ours = type(dataset).__module__.startswith("torchvision.datasets.") and dataset.transforms is None
    loader = getattr(dataset, "loader", None)
    if not ours or (loader is not None and not loader.__module__.startswith("torchvision.")):
        return None
    for name in (*_SAMPLES, *_FILES):
        found = getattr(dataset, name, None)
        if isinstance(found, list) and len(found) == len(dataset):
            paths = [pair[0] for pair in found] if name in _SAMPLES else found
            if all(isinstance(path, (str, Path)) for path in paths):
                return paths
    return None
