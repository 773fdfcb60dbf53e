"""The images of an encoder's page, each embedded once."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stopgrad.cache.store import ImageStore
from stopgrad.data.python import as_splits
from stopgrad.data.sources import ImageSource, Splits
from stopgrad.data.splits import Parts
from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import DataError
from stopgrad.loader.preprocess import Preprocess
from stopgrad.report.parts.images import RunImages, Sample, draw_sample
from stopgrad.reporter import Reporter
from stopgrad.retrieval.database import Bank

MOST_IMAGES = 20_000
"""Images that are embedded unless more are asked for: their thumbnails take 250 MB of memory."""
PRECISION = "fp32"
"""As for a check: small deviations are what health is judged by."""
_LEAST_OF_A_SPLIT = 200
_SECONDS_BEFORE_A_GUESS, _WORTH_TELLING_SECONDS = 3.0, 15.0


@dataclass(frozen=True)
class Embedded:
    """Images of a data set with their features, of both splits where it has two."""

    images: RunImages
    parts: Parts
    """Both splits as one source."""
    bank: Sample
    """The training images, or those of a data set without splits."""
    queries: Sample | None
    """The test images."""

    @property
    def samples(self) -> list[tuple[str, Sample]]:
        """(What they are, images), test images first."""
        bank = (self.images.train_name, self.bank)
        return [bank] if self.queries is None else [(self.images.test_name, self.queries), bank]

    @property
    def tested(self) -> Sample:
        """Those that ask for neighbours: the test images, or where there are none, all."""
        return self.bank if self.queries is None else self.queries

    @property
    def num(self) -> int:
        """Images embedded."""
        return sum(len(sample) for _, sample in self.samples)

    @property
    def is_finite(self) -> bool:
        """Whether all features are finite numbers."""
        return all(bool(sample.features.isfinite().all()) for _, sample in self.samples)

    @property
    def skipped(self) -> list[dict[str, str]]:
        """Images that could not be read: `name` and `reason`."""
        return [
            {"name": name, "reason": reason}
            for _, sample in self.samples
            for name, reason in sample.store.skipped.items()
        ]

    def as_bank(self, encoder: str) -> Bank:
        """All of them together, to be searched for near-duplicates."""
        own, others = self.bank.positions, () if self.queries is None else self.queries.positions
        places = [*own, *(len(self.bank.store) + position for position in others)]
        samples = [self.bank] if self.queries is None else [self.bank, self.queries]
        return Bank(
            vectors=torch.cat([sample.features for sample in samples]), names=[self.parts.name(i) for i in places],
            labels=torch.cat([sample.labels for sample in samples]), class_names=self.images.class_names,
            splits=[self.parts.split(i) for i in places], data=str(self.parts), encoder=encoder, encoder_digest="",
            precision=PRECISION, images=self.parts, places=places, skipped=self.skipped,
        )  # fmt: skip


def open_splits(data: Any) -> Splits:
    """A data set as `as_splits` takes it.

    Raises:
        DataError: nothing there, or nothing in it that is an image.
    """
    splits = as_splits(data)
    if not len(splits.train):
        raise DataError(f"{splits.name}: there are no images.")
    return splits


def embed_splits(
    encoder: Encoder, backbone: nn.Module, splits: Splits, *, num_images: int, place: torch.device, seed: int,
    reporter: Reporter,
) -> Embedded:  # fmt: skip
    """One pass over the images, or over `num_images` of them drawn by the seed.

    Args:
        encoder, backbone, place: the encoder, and its backbone on the device.
        splits: the images; of test images, as large a share is drawn as of training images.
        num_images: most images.
        seed: of the draw.
        reporter: told of progress, and of how long the rest takes.

    Raises:
        DataError: no image can be read.
        ConfigError: the network does not return one row an image.
    """
    preprocess = encoder.preprocess
    train, test = _store(splits.train, preprocess), None if splits.test is None else _store(splits.test, preprocess)
    alone = test is None
    images = RunImages(train, test, train_name="" if alone else "training")
    both: list[tuple[str | None, ImageSource]] = [(None if alone else "train", splits.train)]
    if splits.test is not None:
        both.append(("test", splits.test))
    total = len(train) + (0 if test is None else len(test))
    taken = min(total, num_images)
    num_test = 0
    if test is not None and len(test):
        num_test = min(len(test), max(round(taken * len(test) / total), min(_LEAST_OF_A_SPLIT, taken // 2), 1))
    paced = _Paced(reporter, taken)

    def drawn(store: ImageStore, num: int, what: str) -> Sample:
        return draw_sample(
            backbone, preprocess, store, num, place, seed=seed, precision=PRECISION, reporter=paced, what=what
        )

    bank = drawn(train, taken - num_test, "images" if alone else "training images")
    queries = drawn(test, num_test, "test images") if test is not None and num_test else None
    return Embedded(images, Parts(splits.name, both), bank, queries)


def _store(source: ImageSource, preprocess: Preprocess) -> ImageStore:
    return ImageStore(source, preprocess.shortest, kept=range(len(source)), pixels_are=preprocess.pixels)


class _Paced:
    """Passes reports on, with the images a second; says once how long the rest takes, where it takes long."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self._reporter, self._total = reporter, total
        self._began = time.perf_counter()
        self._done: dict[str, int] = {}
        self._has_guessed = False

    def say(self, text: str) -> None:
        """As it is."""
        self._reporter.say(text)

    def warn(self, text: str) -> None:
        """As it is."""
        self._reporter.warn(text)

    def progress(self, what: str, done: int, total: int, details: str = "") -> None:
        """With the images a second."""
        self._done[what] = done
        so_far, seconds = sum(self._done.values()), time.perf_counter() - self._began
        rate = max(so_far, 1) / max(seconds, 1e-9)
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        left = (self._total - so_far) / rate
        if not self._has_guessed and seconds >= _SECONDS_BEFORE_A_GUESS:
            self._has_guessed = True
            if left >= _WORTH_TELLING_SECONDS:
                self._reporter.say(f"{self._total:,} images to embed, {speed} a second: about {_in_words(left)} to go.")
        # The end needs no line of its own.
        self._reporter.progress(what, done, total, f"{speed} images/s" if done < total else details)


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
