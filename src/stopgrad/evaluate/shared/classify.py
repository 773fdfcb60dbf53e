"""What evaluations that classify by features share: they differ in the classifier alone."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.features import Features
from stopgrad.evaluate.shared.baselines import feature_variants
from stopgrad.evaluate.shared.outcome import Outcome, Score, by_class
from stopgrad.evaluate.shared.splits import Images, Sides, open_sides
from stopgrad.evaluate.shared.subject import opened, pixel_words, precision_for, unlabelled_words
from stopgrad.metrics.paired import compare_paired
from stopgrad.reporter import QuietReporter, Reporter


@dataclass(frozen=True)
class Subject:
    """What is evaluated, on which images and how."""

    encoder: Encoder
    run: RunDir | None
    sides: Sides
    device: str
    precision: str
    """What the network computes in: `fp32` or `bf16`."""
    batch_size: int
    baselines: bool
    seed: int
    reporter: Reporter
    began: float


@dataclass(frozen=True)
class Judged:
    """What a classifier made of one variant of the features."""

    score: Score
    predicted: Tensor
    """The class of each image that was judged, `[image]`, or for several draws `[draw image]`."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Kept in the outcome's details, by name and then by variant."""


@dataclass(frozen=True)
class Description:
    """What an evaluation is measured by."""

    words: str
    """How the protocol begins."""
    settings: Mapping[str, Any]
    compared_by: str = ""
    """The words without what was chosen on the training images, or came out; empty: there is nothing of the kind."""


def subject_of(
    encoder: str | Path | Encoder, train: Images | None, test: Images | None, *, holdout: float, baselines: bool,
    batch_size: int, device: str, precision: str | None, seed: int, reporter: Reporter | None,
) -> Subject:  # fmt: skip
    """Open the encoder and the images; arguments as for the evaluations, `holdout` as for `open_sides`."""
    began = time.perf_counter()
    loaded, run = opened(encoder)
    kind = precision_for(precision, run, device)
    sides = open_sides(train, test, run, holdout=holdout, seed=seed)
    return Subject(loaded, run, sides, device, kind, batch_size, baselines, seed, reporter or QuietReporter(), began)


def classify(
    subject: Subject, evaluation: str, judge: Callable[[str, Features, Features | None], Judged],
    describe: Callable[[int, int], Description], *, centred: bool = True,
) -> Outcome:  # fmt: skip
    """Judge the trained features and the baselines, one after another, and keep the outcome in the run.

    Args:
        subject: what is evaluated.
        evaluation: its name.
        judge: variant, training features and test features (None: there is one set) to what came of them.
        describe: how many training images and how many were judged, to what the trained network is measured by; called
            after the last variant.
        centred: whether mean-centred pixels are a variant of their own.
    """
    sides = subject.sides
    scores: dict[str, Score] = {}
    details: dict[str, dict[str, Any]] = {}
    first: tuple[int, Tensor, dict[str, str], Judged] | None = None
    for variant, bank, queries in feature_variants(
        subject.encoder, subject.run, sides, subject.device, batch_size=subject.batch_size,
        precision=subject.precision, baselines=subject.baselines, seed=subject.seed, reporter=subject.reporter,
        centred=centred,
    ):  # fmt: skip
        judged = judge(variant, bank, queries)
        scores[variant] = judged.score
        for name, value in judged.details.items():
            details.setdefault(name, {})[variant] = value
        if first is not None and judged.predicted.ndim == 1:
            # The same images in the same order, so that the difference is judged in pairs.
            right, right_too = (one.predicted.cpu() == first[1] for one in (first[3], judged))
            details.setdefault("paired", {})[variant] = asdict(compare_paired(right, right_too))
        if first is None:
            asked = bank if queries is None else queries
            first = (len(bank), asked.labels, {**bank.skipped, **asked.skipped}, judged)
            del asked
        # Before the next features are made.
        del bank, queries
    assert first is not None
    num_train, labels, skipped, judged = first
    described = describe(num_train, len(labels))
    rest = [
        unlabelled_words(sides), f"features in {subject.precision}", pixel_words(subject.encoder, subject.baselines)
    ]  # fmt: skip
    protocol, compared_by = (
        "; ".join(filter(None, [words, *rest])) for words in (described.words, described.compared_by or described.words)
    )
    per_class, confusions = by_class(judged.predicted, labels, sides.class_names)
    outcome = Outcome(
        evaluation=evaluation, encoder=subject.encoder.name,
        protocol=protocol, compared_by=compared_by,
        settings={**described.settings, "preprocess": asdict(subject.encoder.preprocess), "seed": subject.seed,
                  "precision": subject.precision, "num_unlabelled": sides.num_unlabelled},
        scores=scores, num_train=num_train, num_test=len(labels), per_class=per_class, confusions=confusions,
        details=details, seconds=round(time.perf_counter() - subject.began, 1),
        skipped=[{"name": n, "reason": reason} for n, reason in skipped.items()],
    )  # fmt: skip
    if subject.run is not None:
        outcome.keep_in(subject.run, subject.reporter)
    return outcome
