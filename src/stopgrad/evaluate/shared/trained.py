"""What evaluations that train with labels share: they differ in what is trained."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cache.store import ImageStore
from stopgrad.config import Config
from stopgrad.data.sources import ImageSource
from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.evaluate.shared.crops import crops_words
from stopgrad.evaluate.shared.holdout import check_can_choose, hold_out
from stopgrad.evaluate.shared.outcome import Outcome, by_class, score
from stopgrad.evaluate.shared.prepare import pixel_words, unlabelled_words
from stopgrad.evaluate.shared.splits import LabelledSplits
from stopgrad.loader.labelled import batching
from stopgrad.reporter import Reporter

HELD_OUT = 0.1
"""Share of each class of the training images that the learning rate is chosen on."""
TEST_SHARE = 0.2
"""Share of one set of images that is taken out to test on."""


@dataclass(frozen=True)
class Task:
    """What is evaluated, on which images, and what the training of every network has in common."""

    encoder: Encoder
    run: RunDir | None
    splits: LabelledSplits
    store: ImageStore
    """The training images, decoded."""
    config: Config
    """Of the data path: crops, batches and the seed."""
    rates: Sequence[float]
    """Learning rates to choose among, for a batch of 256."""
    device: torch.device
    precision: str
    reporter: Reporter
    began: float

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return self.config.training.seed

    @property
    def batch_size(self) -> int:
        """Images a step, when training on all of them."""
        return batching(len(self.store), self.config.training.batch_size)[1]

    @property
    def test(self) -> ImageSource:
        """The test images."""
        assert self.splits.test is not None
        return self.splits.test


@dataclass(frozen=True)
class Judged:
    """What one network came to."""

    predicted: Int[Tensor, "image"]
    """The class that each test image is taken for."""
    labels: Int[Tensor, "image"]
    rate: float
    """The learning rate it was trained at."""
    held_out: Mapping[str, float]
    """Learning rate -> accuracy on the images held out; empty where there was nothing to choose."""
    skipped: Mapping[str, str]
    """Name -> reason of each test image that could not be read."""


def check_training(
    epochs: int, lr: Sequence[float], optimizer: str, weight_decay: float | None,
    defaults: Mapping[str, Sequence[float]],
) -> tuple[float, ...]:  # fmt: skip
    """The learning rates to train at: those given, each once, or where none is, the optimizer's of `defaults`.

    Raises:
        ConfigError: a value out of range, or an optimizer that `defaults` lacks.
    """
    # Written so that NaN fails too.
    if optimizer not in defaults:
        raise ConfigError(f"optimizer = {optimizer!r} is unknown: {did_you_mean(optimizer, defaults)}")
    if epochs < 1:
        raise ConfigError(f"epochs = {epochs}: must be at least 1.")
    if weight_decay is not None and not weight_decay >= 0:
        raise ConfigError(f"weight_decay = {weight_decay}: must be at least 0.")
    for rate in lr:
        check_rate("lr", rate)
    return tuple(dict.fromkeys(lr)) or tuple(defaults[optimizer])


def check_rate(name: str, rate: float) -> None:
    """Raise `ConfigError` for a learning rate that is not above 0, or infinite."""
    if not (rate > 0 and math.isfinite(rate)):
        raise ConfigError(f"{name} = {rate}: must be above 0.")


def hold_out_to_choose(task: Task) -> Bool[Tensor, "image"]:
    """Which training images to leave out of the training that the learning rate is chosen by.

    Raises:
        ConfigError: there are rates to choose among, and no class has two images.
    """
    held = hold_out(task.store.labels, HELD_OUT, task.seed)
    check_can_choose(task.rates, held)
    return held


def conclude(
    task: Task, evaluation: str, judged: Mapping[str, Judged], words: Callable[[str], str], *,
    settings: Mapping[str, Any], details: Mapping[str, Any] | None = None, beside: str = "",
) -> Outcome:  # fmt: skip
    """What the evaluation found; kept in the run.

    Args:
        task: what was evaluated.
        evaluation: its name.
        judged: variant -> what it came to; `trained` first.
        words: what to say of the learning rate, to how the protocol begins: up to the training images.
        settings: how it was trained, beside what is so for every evaluation of the kind.
        details: what only this evaluation has.
        beside: what the protocol says of the baselines, at its end.
    """
    trained, splits, augmentation = judged["trained"], task.splits, task.config.augmentation
    chooses = len(task.rates) > 1
    tried = (
        f", of {', '.join(f'{rate:g}' for rate in task.rates)} the best on {HELD_OUT:.0%} of each class held out, then "
        "all images" if chooses else ""
    )  # fmt: skip
    rest = [
        f"tested on {len(trained.labels):,} of {splits.test_name}", unlabelled_words(splits),
        pixel_words(task.encoder, baselines=False), f"seed {task.seed}", beside,
    ]  # fmt: skip
    chosen = f"lr {trained.rate:g}"
    protocol, compared_by = (
        "; ".join(filter(None, [words(rate), *rest])) for rate in (chosen + tried, f"lr{tried}" if chooses else chosen)
    )
    per_class, confusions = by_class(trained.predicted, trained.labels, splits.class_names)
    outcome = Outcome(
        evaluation=evaluation, encoder=task.encoder.name, protocol=protocol, compared_by=compared_by,
        settings={
            **settings, "lr": trained.rate, "lrs": list(task.rates), "batch_size": task.batch_size,
            "schedule": "cosine", "precision": task.precision, "augmentation": crops_words(task.config),
            "crop_scale_min": augmentation.crop_scale_min, "flip_probability": augmentation.flip_probability,
            "held_out": HELD_OUT if chooses else 0.0, "preprocess": asdict(task.encoder.preprocess),
            "seed": task.seed, "num_unlabelled": splits.num_unlabelled,
        },
        scores={name: score(j.predicted, j.labels) for name, j in judged.items()},
        num_train=len(task.store), num_test=len(trained.labels), per_class=per_class, confusions=confusions,
        details={
            "lr": {name: j.rate for name, j in judged.items()},
            "held_out_accuracy_by_lr": {name: dict(j.held_out) for name, j in judged.items()},
            **(details or {}),
        },
        seconds=round(time.perf_counter() - task.began, 1),
        skipped=[{"name": name, "reason": why} for name, why in {**task.store.skipped, **trained.skipped}.items()],
    )  # fmt: skip
    if task.run is not None:
        outcome.keep_in(task.run, task.reporter)
    return outcome


class Pace:
    """A clock that starts when it is made.

    Args:
        total: steps to come.
    """

    def __init__(self, total: int) -> None:
        self.total, self._began, self._images = total, time.perf_counter(), 0

    def add(self, images: int) -> None:
        """So many images more are done."""
        self._images += images

    def is_due(self, done: int) -> bool:
        """Whether to tell of it after `done` steps: some hundred times in all, since asking a device makes it wait."""
        return done == self.total or done * 200 // self.total != (done - 1) * 200 // self.total

    def images_per_second(self) -> float:
        """Since the start."""
        return self._images / max(time.perf_counter() - self._began, 1e-9)

    def words(self, done: int) -> str:
        """Speed, and the time left at that speed."""
        seconds = time.perf_counter() - self._began
        left = seconds / max(done, 1) * (self.total - done)
        speed = f"{self.images_per_second():,.0f} images/s"
        return f"{speed}, {_duration(left)} left" if done < self.total else f"{speed}, {_duration(seconds)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
