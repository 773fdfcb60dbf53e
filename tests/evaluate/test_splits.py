import numpy as np
import pytest
from labelled import images_of
from PIL import Image

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.data.sources import Splits
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluate.shared.splits import open_labelled_splits


def folder(root, classes, *, num=3):
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(num):
            Image.fromarray(np.full((8, 8, 3), 40 * i, dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def test_classes_are_numbered_alike(tmp_path):
    """The test folder lacks the class that comes first, so that its own numbers are one lower."""
    splits = open_labelled_splits(
        folder(tmp_path / "a", ["ant", "bee", "cat"]), folder(tmp_path / "b", ["bee", "cat"], num=2)
    )
    assert list(splits.class_names) == ["ant", "bee", "cat"]
    assert [splits.test.label(i) for i in range(4)] == [1, 1, 2, 2]
    assert list(splits.test.class_names) == ["ant", "bee", "cat"]
    assert splits.test.name(0).endswith("bee/0.png")
    assert len(splits.test.read(0)) > 0


def test_foreign_test_classes_are_refused(tmp_path):
    train, test = folder(tmp_path / "a", ["ant", "bee"]), folder(tmp_path / "b", ["ant", "wasp", "yak"])
    with pytest.raises(DataError, match=r"classes that the training images lack \(2\): 'wasp', 'yak'; they have 'ant'"):
        open_labelled_splits(train, test)


def test_a_class_without_training_images_is_foreign():
    with pytest.raises(DataError, match=r"lack \(1\): 'cat'"):
        open_labelled_splits(images_of([0, 1, 0, 1]), images_of([0, 2]))


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 0, 0], ["ant", "bee"], r"labels of 1 class only \('ant'\): needs at least 2"),
        ([-1, -1], ["ant", "bee"], "has no labels, which this evaluation needs"),
        ([-1, -1], [], "has no labels"),
    ],
)
def test_too_few_classes(labels, names, message):
    with pytest.raises(DataError, match=message):
        open_labelled_splits(images_of(labels, names=names), None)


def test_test_images_without_labels():
    with pytest.raises(DataError, match="has no labels"):
        open_labelled_splits(images_of([0, 1]), images_of([-1, -1]))


def test_unlabelled_images_are_counted_on_both_sides():
    splits = open_labelled_splits(images_of([0, 1, -1]), images_of([1, -1, -1, 0]))
    assert (len(splits.train), len(splits.test), splits.num_unlabelled) == (2, 2, 3)


def test_a_held_out_share_of_each_class():
    labels = [0] * 20 + [1] * 10 + [2]
    splits = open_labelled_splits(images_of(labels), None, holdout=0.2, seed=3)
    taken = [splits.test.label(i) for i in range(len(splits.test))]
    # A class of one image stays in whole.
    assert (taken.count(0), taken.count(1), taken.count(2)) == (4, 2, 0)
    assert len(splits.train) + len(splits.test) == 31
    names = {splits.train.name(i) for i in range(25)} & {splits.test.name(i) for i in range(6)}
    assert not names
    assert "20% of each class" in splits.test_name
    assert "seed 3" in splits.test_name
    again = open_labelled_splits(images_of(labels), None, holdout=0.2, seed=3)
    # A seed says which, from one version to the next.
    assert again.test.indices == splits.test.indices == [8, 12, 16, 18, 25, 27]
    assert open_labelled_splits(images_of(labels), None, holdout=0.2, seed=4).test.indices != splits.test.indices


def test_negative_seeds():
    with pytest.raises(ConfigError, match="seed = -1: must be at least 0"):
        open_labelled_splits(images_of([0, 1]), images_of([0, 1]), seed=-1)


def test_splits_bring_their_test_images(tmp_path):
    folder(tmp_path / "set" / "train", ["ant", "bee"])
    folder(tmp_path / "set" / "test", ["ant", "bee"], num=1)
    splits = open_labelled_splits(tmp_path / "set", None)
    assert (len(splits.train), len(splits.test)) == (6, 2)
    # Of a second set with splits, the test images.
    assert len(open_labelled_splits(tmp_path / "set", tmp_path / "set").test) == 2
    assert isinstance(Splits("x", splits.train).train, type(splits.train))


def test_no_images(tmp_path):
    with pytest.raises(ConfigError, match="no images: give --train"):
        open_labelled_splits(None, None)
    with pytest.raises(ConfigError, match="no images: give --train"):
        open_labelled_splits(None, None, RunDir(tmp_path))


def test_images_of_a_run_that_are_gone(run_folder):
    run = RunDir(run_folder)
    assert len(open_labelled_splits(None, None, run).test) == 360
    run.write_config(run.read_config().replace(path="/no/longer/here"))
    with pytest.raises(ConfigError, match="'/no/longer/here', no longer exist: give --train"):
        open_labelled_splits(None, None, run)
