"""Images that a Python program hands over, whatever holds them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.data.kinds.folders import FileSource
from stopgrad.data.kinds.numpy_files import is_one
from stopgrad.data.open import DEFAULTS, open_images
from stopgrad.data.pixels import MOST_CHANNELS
from stopgrad.data.place import IN_MEMORY, holds_data_set
from stopgrad.data.shared.pixels import as_image
from stopgrad.data.sources import ArraySource, ImageSource, ListSource, Splits
from stopgrad.errors import ConfigError
from stopgrad.settings import Data


def as_splits(data: Any, settings: Data = DEFAULTS) -> Splits:
    """A data set as splits.

    Args:
        data: a path or name as `open_images` takes it, `Splits`, a `DatasetDict` of Hugging Face, or whatever else
            `as_source` takes.
        settings: of shards, as for `open_images`.

    Raises:
        ConfigError, DataError, ValueError: as `open_images` and `as_source`.
    """
    if isinstance(data, Splits):
        return data
    if isinstance(data, (str, Path)):
        return open_images(data, settings)
    if _is_of(data, "datasets", "DatasetDict"):
        from stopgrad.data.kinds.huggingface import splits_of

        return splits_of(data, IN_MEMORY)
    return Splits(IN_MEMORY, as_source(data))


def as_source(data: Any) -> ImageSource:
    """Images as a source.

    Args:
        data: a path or name as `open_images` takes it (of a data set with splits, the training images), or an image
            file; an `ImageSource`; an array `[image, height, width]` or `[image, height, width, channel]`; a tensor
            `[image, channel, height, width]`; a sequence of paths, Pillow images, arrays or tensors; a map-style
            data set of PyTorch; a `Dataset` of Hugging Face.

    Raises:
        ConfigError: none of these.
        DataError: a path where there are no images.
        ValueError: pixels of another shape.
    """
    if isinstance(data, (str, Path)):
        return FileSource([Path(data).expanduser()]) if is_one_image(data) else open_images(data).train
    if isinstance(data, ImageSource):
        return data
    if _is_of(data, "torch", "Tensor"):
        return ArraySource(_channels_last(data))
    if isinstance(data, np.ndarray) and data.dtype != object:
        if data.ndim not in (3, 4):
            raise ValueError(f"an array of shape {data.shape}: needs [image, height, width] or [..., channel].")
        return ArraySource(data)
    if isinstance(data, (Sequence, np.ndarray)):
        if len(data) and all(isinstance(image, (str, Path)) for image in data):
            return FileSource([Path(image).expanduser() for image in data])
        try:
            return ListSource([as_image(image) if hasattr(image, "detach") else image for image in data])
        except OSError as error:
            raise ValueError(f"a list with {error}: needs images, arrays or tensors of images, or paths.") from error
    if _is_of(data, "datasets", "Dataset"):
        from stopgrad.data.kinds.huggingface import HuggingFaceSource

        return HuggingFaceSource(data, IN_MEMORY)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        from stopgrad.data.kinds.torch_datasets import source_of

        return source_of(data)
    raise ConfigError(
        f"{type(data).__name__} is nothing that holds images: give a path, an array [image, height, width, channel], a "
        "list of images or paths, a data set with a length and items (of PyTorch or Hugging Face), or an ImageSource."
    )


def is_one_image(path: str | Path) -> bool:
    """Whether a path is that of an image file, and not of a data set; a .npy may be either."""
    file = Path(path).expanduser()
    if not file.is_file():
        return False
    return is_one(file) if file.suffix.lower() == ".npy" else not holds_data_set(file)


def _is_of(data: Any, package: str, name: str) -> bool:
    """Whether it is of a class of a library, which is not imported for that."""
    return any(base.__name__ == name and base.__module__.split(".")[0] == package for base in type(data).__mro__)


def _channels_last(tensor: Any) -> np.ndarray:
    if tensor.ndim == 4 and tensor.shape[1] <= MOST_CHANNELS:
        tensor = tensor.permute(0, 2, 3, 1)
    elif tensor.ndim != 3:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)}: needs [image, channel, height, width].")
    return np.asarray(tensor.detach().cpu().numpy())
