"""Data sets of torchvision by name, and of PyTorch as objects."""

import struct

import numpy as np
import pytest
import torch
import torchvision
from encoded import classes, labels, names, save, shades
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from torch.utils.data import Subset as TorchSubset

from stopgrad.data.kinds.folders import FileSource
from stopgrad.data.open import open_images
from stopgrad.data.place import check_there
from stopgrad.data.python import as_source
from stopgrad.data.shared import extras
from stopgrad.errors import ConfigError, DataError


def write_mnist(root):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, shades_of in (("train", [1, 2, 3]), ("t10k", [9])):
        pixels = np.stack([np.full((28, 28), value, np.uint8) for value in shades_of])
        header = struct.pack(">IIII", 2051, len(pixels), 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        given = np.array([value % 3 for value in shades_of], np.uint8)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(given)) + given.tobytes())
    return root


def test_training_and_test_images_by_name(tmp_path):
    text = f"torchvision:MNIST:{write_mnist(tmp_path)}"
    check_there(text)
    splits = open_images(text)
    assert splits.name == "MNIST"
    assert shades(splits.train) == [1, 2, 3]
    assert classes(splits.train) == ["1 - one", "2 - two", "0 - zero"]
    assert shades(splits.test) == [9]
    assert labels(splits.test) == [0]
    assert names(splits.train)[0] == "MNIST 0"


def test_splits_by_name(tmp_path):
    for split, value in (("train", 1), ("val", 2)):
        for wnid in ("n01440764", "n02102040"):
            save(tmp_path / "imagenette2" / split / wnid / "a.JPEG", value)
    splits = open_images(f"torchvision:Imagenette:{tmp_path}")
    assert isinstance(splits.train, FileSource)
    assert shades(splits.train) == [1, 1]
    assert shades(splits.test) == [2, 2]
    assert labels(splits.train) == [0, 1]


def test_several_with_a_folder(tmp_path):
    save(tmp_path / "more" / "0 - zero" / "a.png", 7)
    save(tmp_path / "more" / "else" / "b.png", 8)
    splits = open_images(f"torchvision:MNIST:{write_mnist(tmp_path / 'set')}::{tmp_path / 'more'}")
    assert classes(splits.train)[2:] == ["0 - zero", "0 - zero", "else"]
    assert splits.train.cache_key() is None


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("torchvision:MNITS:{}", ConfigError, "no data set 'MNITS': did you mean"),
        ("torchvision:CIFAR10:{}", DataError, r"is not there .*download=True"),
        ("torchvision:MNIST:{}", DataError, r"is not there .*d\('.*', train=True, download=True\)"),
        ("torchvision:EMNIST:{}", ConfigError, "has no split 'train'"),
    ],
)
def test_what_is_not_there(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        open_images(text.format(tmp_path))


def test_without_torchvision(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[torchvision\]'"):
        check_there(f"torchvision:MNIST:{tmp_path}")


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def grey(value):
    return Image.new("L", (9, 8), value)


@pytest.mark.parametrize(
    "image",
    [
        grey(5),
        np.full((8, 9), 5, np.uint8),
        np.full((8, 9, 3), 5, np.uint8),
        torch.full((3, 8, 9), 5, dtype=torch.uint8),
        torch.full((1, 8, 9), 5, dtype=torch.uint8),
        torch.full((8, 9), 5, dtype=torch.uint8),
        torch.full((8, 9, 3), 5, dtype=torch.uint8),
    ],
)
@pytest.mark.parametrize("pack", [lambda image: image, lambda image: (image, 1), lambda image: {"image": image}])
def test_items_of_any_kind(image, pack):
    source = as_source(Items([pack(image)] * 2))
    assert shades(source) == [5, 5]
    assert np.asarray(source.read(0)).shape[:2] == (8, 9)
    assert source.name(1) == "Items 1"


def test_floats_come_with_channels_last():
    tensor = torch.rand(3, 8, 9)
    np.testing.assert_array_equal(as_source(Items([(tensor, 0)])).read(0), tensor.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    "given",
    [[3, 5, 3], ["a", "b", "a"], [torch.tensor(3), torch.tensor(5), torch.tensor(3)], list(np.array([3, 5, 3]))],
)
def test_labels_of_items(given):
    source = as_source(Items([(grey(i), label) for i, label in enumerate(given)]))
    assert labels(source) == [0, 1, 0]
    assert [str(name) for name in source.class_names] in (["3", "5"], ["a", "b"])


@pytest.mark.parametrize("label", [None, 0.5, torch.rand(2), [1, 2]])
def test_what_is_no_label(label):
    assert labels(as_source(Items([(grey(1), label)] * 2))) == [-1, -1]


def test_labels_that_the_data_set_has_are_not_read_from_items():
    class Known(Items):
        targets = (1, 0, 1)
        classes = ("ant", "bee")
        read = 0

        def __getitem__(self, index):
            self.read += 1
            return grey(index), None

    dataset = Known([0, 1, 2])
    source = as_source(dataset)
    assert dataset.read == 0
    assert classes(source) == ["bee", "ant", "bee"]
    assert classes(as_source(TorchSubset(dataset, [1, 2]))) == ["ant", "bee"]
    assert shades(as_source(TorchSubset(dataset, [1, 2]))) == [1, 2]


def test_tensors():
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 8, 8)
    source = as_source(TensorDataset(images, torch.tensor([1, 0, 1])))
    assert shades(source) == [0, 1, 2]
    assert labels(source) == [1, 0, 1]


def test_files_of_a_folder_are_read_without_decoding_them(tmp_path):
    save(tmp_path / "cat" / "a.png", 1)
    save(tmp_path / "dog" / "b.png", 2)
    source = as_source(torchvision.datasets.ImageFolder(str(tmp_path)))
    assert isinstance(source, FileSource)
    assert classes(source) == ["cat", "dog"]
    # With a transform the items are others than the files.
    changed = as_source(torchvision.datasets.ImageFolder(str(tmp_path), transform=lambda image: image.resize((2, 3))))
    assert not isinstance(changed, FileSource)
    assert np.asarray(changed.read(0)).shape[:2] == (3, 2)
    assert classes(changed) == ["cat", "dog"]


def test_an_item_that_fails_is_an_unreadable_image():
    class Failing(Items):
        def __getitem__(self, index):
            raise KeyError("no such thing")

    source = as_source(Failing([0, 1]))
    with pytest.raises(OSError, match="KeyError: 'no such thing'"):
        source.read(0)
    with pytest.raises(OSError, match="no image, but float"):
        as_source(Items([0.5])).read(0)


def test_a_stream_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(ConfigError, match="Stream is nothing that holds images"):
        as_source(Stream())


def test_damaged_files_of_a_data_set_by_name(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"damaged")
    with pytest.raises((DataError, ConfigError), match="torchvision:MNIST"):
        open_images(f"torchvision:MNIST:{tmp_path}")
