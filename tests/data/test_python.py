"""What a Python program may hand over, wherever images are taken."""

import numpy as np
import pytest
import torch
from encoded import labels, png, save, shades
from labelled import images_of
from photos import write_run
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

import stopgrad
from stopgrad.data.python import as_source, as_splits
from stopgrad.data.sources import ArraySource, Splits, Subset, all_labels
from stopgrad.errors import ConfigError


def pixels(num=4):
    return np.stack([np.full((8, 9, 3), i, np.uint8) for i in range(num)])


@pytest.mark.parametrize(
    "data",
    [
        pixels(),
        pixels()[..., 0],
        pixels()[..., :1],
        torch.from_numpy(pixels()).permute(0, 3, 1, 2),
        torch.from_numpy(pixels()[..., 0]),
        list(pixels()),
        [Image.fromarray(image) for image in pixels()],
        [png(i) for i in range(4)],
        [torch.from_numpy(image).permute(2, 0, 1) for image in pixels()],
        ArraySource(pixels()),
    ],
    ids=lambda data: f"{type(data).__name__}-{getattr(data, 'shape', '')}",
)
def test_images_in_memory(data):
    assert shades(as_source(data)) == [0, 1, 2, 3]
    assert shades(as_splits(data).train) == [0, 1, 2, 3]
    assert as_splits(data).test is None


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_other_numbers_come_as_they_are(dtype):
    array = np.arange(2 * 8 * 9 * 5).reshape(2, 8, 9, 5).astype(dtype)
    np.testing.assert_array_equal(as_source(array).read(1), array[1])
    np.testing.assert_array_equal(as_source([array[0], array[1]]).read(1), array[1])


def test_paths(tmp_path):
    files = [save(tmp_path / f"{i}.png", i) for i in (2, 1)]
    assert shades(as_source(files)) == [2, 1]
    assert shades(as_source([str(f) for f in files])) == [2, 1]
    assert shades(as_source(str(files[0]))) == [2]
    assert shades(as_source(tmp_path)) == [1, 2]


@pytest.mark.parametrize("data", [None, 3, object(), {1, 2}, (i for i in [1])])
def test_what_holds_no_images(data):
    with pytest.raises(ConfigError, match="is nothing that holds images: give a path, an array"):
        as_source(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 5)), "needs"),
        (torch.zeros((4, 5)), "needs"),
        (torch.zeros((4, 50, 8, 8)), "needs"),
        ([torch.zeros(5)], "no image, but ndarray of shape"),
    ],
)
def test_pixels_of_other_shapes(data, message):
    with pytest.raises(ValueError, match=message):
        as_source(data)


def test_labels_all_at_once():
    source = images_of([0, 2, 1, -1])
    assert labels(source) == [0, 2, 1, -1]
    assert labels(Subset(source, [3, 1])) == [-1, 2]

    class Plain:
        class_names = ("a", "b")

        def __len__(self):
            return 2

        def read(self, index):
            return png(index)

        def label(self, index):
            return 1 - index

        def name(self, index):
            return str(index)

    assert all_labels(Plain()).tolist() == [1, 0]
    assert as_source(source) is source
    assert shades(as_source(Plain())) == [0, 1]


DIGITS = np.round(load_digits().images[:80] * (255 / 16)).astype(np.uint8)
ALIKE = {
    "array": DIGITS,
    "pictures": [Image.fromarray(image) for image in DIGITS],
    "dataset": TensorDataset(torch.from_numpy(DIGITS)[:, None], torch.from_numpy(load_digits().target[:80])),
    "splits": Splits("own", ArraySource(DIGITS)),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return stopgrad.load_encoder(write_run(tmp_path_factory.mktemp("run") / "run"))


@pytest.fixture(scope="module")
def expected(encoder):
    return encoder.embed(ArraySource(DIGITS))


@pytest.mark.parametrize("kind", ["array", "pictures", "dataset"])
def test_embed(encoder, expected, kind):
    torch.testing.assert_close(encoder.embed(ALIKE[kind]), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", list(ALIKE))
def test_embed_to_file_and_search(encoder, kind, tmp_path):
    stopgrad.embed_to_file(encoder, ALIKE[kind], tmp_path / "e.parquet")
    assert len(stopgrad.read_embeddings(tmp_path / "e.parquet")) == 80
    found = stopgrad.search(encoder, [Image.fromarray(DIGITS[5])], data=ALIKE[kind], top=1)
    assert found.answers[0].hits[0].row == 5


@pytest.mark.parametrize("kind", list(ALIKE))
def test_check_and_evaluate(encoder, kind):
    assert stopgrad.check(encoder, ALIKE[kind]).num_images == 80
    if kind == "dataset":
        assert stopgrad.evaluate_knn(encoder, ALIKE[kind], baselines=False).accuracy > 0.3


@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_pretrain(kind, tmp_path, tiny):
    run = stopgrad.pretrain(
        ALIKE[kind], out=tmp_path / "run", recipe="digits", **{**tiny, "steps": 1, "baselines": False}
    )
    assert run.metrics
