"""The labelled images of an evaluation: training and test images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.data.place import in_full
from stopgrad.data.python import as_splits
from stopgrad.data.sources import UNLABELLED, ImageSource, Subset, all_labels, labels_of
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluate.shared.holdout import TO_TEST, check_seed, hold_out

Images = Any
"""A data set by its path, or of whatever type `as_splits` takes."""


@dataclass(frozen=True)
class LabelledSplits:
    """Labelled images, their classes numbered alike in both."""

    train: ImageSource
    test: ImageSource | None
    """None: there is one set only."""
    train_name: str
    test_name: str
    num_unlabelled: int = 0
    """Images left out because they have no label."""

    @property
    def class_names(self) -> Sequence[str]:
        """The classes, in the order of their numbers."""
        return self.train.class_names


def open_labelled_splits(
    train: Images | None, test: Images | None, run: RunDir | None = None, *, holdout: float = 0.0, seed: int = 0
) -> LabelledSplits:
    """Open the images of an evaluation and check their labels.

    Args:
        train: a data set by its path, or of whatever type `as_splits` takes; None: the run's own.
        test: the same; of a data set with splits, its test images. None: the test images of `train`, if it has any.
        run: where to look for the data set if none is given.
        holdout: with one set only, the share of each class, above 0 and below 1, that is taken out as test images;
            0 leaves `test` None.
        seed: of that choice, 0 or more.

    Raises:
        ConfigError: no data set given and none known, or a negative seed.
        DataError: labels missing, one class only, or test images of a class that the training images lack.
    """
    check_seed(seed)
    if train is None:
        train = images_of(run, "--train")
    if "" in (train, test) and run is None:
        raise ConfigError("an empty path: give a folder with a subfolder for each class, or a parquet file.")
    splits = as_splits(train)
    test_source, test_name = splits.test, f"{splits.name}, test images"
    if test is not None:
        given = as_splits(test)
        if given.test is None and _same(train, test):
            raise ConfigError(
                f"{str(test)!r} is given both as training and as test images: every image would find itself. Leave "
                "--test out."
            )
        test_source, test_name = given.test or given.train, given.name
    left, train_source = _labelled(splits.train, splits.name)
    class_names = train_source.class_names
    present = set(all_labels(train_source).tolist())
    if len(present) < 2:
        only = f" ({class_names[present.pop()]!r})" if present else ""
        raise DataError(
            f"{splits.name} has labels of {len(present) or 1} class only{only}: needs at least 2.", topic="no-labels"
        )
    train_name = splits.name if test_source is None else f"{splits.name}, training images"
    if test_source is None:
        if not holdout:
            return LabelledSplits(train_source, None, train_name, train_name, left)
        train_source, test_source = _split(train_source, holdout, seed)
        test_name = f"{holdout:.0%} of each class of {splits.name}, held out by seed {seed}"
    else:
        more, test_source = _labelled(test_source, test_name)
        left += more
        test_source = _numbered_alike(test_source, class_names, present, test_name)
    return LabelledSplits(train_source, test_source, train_name, test_name, left)


class Renumbered:
    """A source whose classes are numbered as another's."""

    def __init__(self, source: ImageSource, class_names: Sequence[str]) -> None:
        place = {name: i for i, name in enumerate(class_names)}
        self.source, self.class_names = source, class_names
        self._number = [place.get(name, UNLABELLED) for name in source.class_names]

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Any:
        """As the source has it."""
        return self.source.read(index)

    def label(self, index: int) -> int:
        """The number among the other's classes."""
        label = self.source.label(index)
        return self._number[label] if label >= 0 else UNLABELLED

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """As `label`."""
        return np.array([*self._number, UNLABELLED])[labels_of(self.source, indices)]

    def name(self, index: int) -> str:
        """As the source has it."""
        return self.source.name(index)


def images_of(run: RunDir | None, flag: str) -> str:
    """Where the images of a run are; `flag` is how a caller gives others.

    Raises:
        ConfigError: no run, or its images are gone.
    """
    if run is None or not run.is_run:
        raise ConfigError(f"no images: give {flag}, a folder of images or a parquet file.")
    return run.images_path(flag)


def _same(first: Images, second: Images) -> bool:
    if isinstance(first, (str, Path)) and isinstance(second, (str, Path)):
        return os.path.realpath(in_full(first)) == os.path.realpath(in_full(second))
    return first is second


def _labelled(source: ImageSource, name: str) -> tuple[int, ImageSource]:
    """The images with a label, and how many have none."""
    kept = np.flatnonzero(all_labels(source) >= 0).tolist()
    if not kept or not source.class_names:
        raise DataError(
            f"{name} has no labels, which this evaluation needs: give a folder with a subfolder for each class, or a "
            "parquet file with a label column.",
            topic="no-labels",
        )
    return len(source) - len(kept), source if len(kept) == len(source) else Subset(source, kept)


def _numbered_alike(source: ImageSource, class_names: Sequence[str], present: set[int], name: str) -> ImageSource:
    known = {class_names[label] for label in present}
    here = {source.class_names[label] for label in set(all_labels(source).tolist())}
    if foreign := sorted(here - known):
        raise DataError(
            f"{name} has classes that the training images lack ({len(foreign)}): {_some(foreign)}; they have "
            f"{_some(sorted(known))}.",
            topic="no-labels",
        )
    return source if list(source.class_names) == list(class_names) else Renumbered(source, class_names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _split(source: ImageSource, share: float, seed: int) -> tuple[Subset, Subset]:
    """What is left to learn from, and the share of each class that is taken out to test on."""
    taken = hold_out(torch.from_numpy(all_labels(source)), share, seed, purpose=TO_TEST)
    return Subset(source, (~taken).nonzero()[:, 0].tolist()), Subset(source, taken.nonzero()[:, 0].tolist())
