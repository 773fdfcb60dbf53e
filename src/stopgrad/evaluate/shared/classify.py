"""What evaluations that classify by features share: they differ only in the classifier."""

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
from stopgrad.evaluate.shared.prepare import opened, pixel_words, precision_for, unlabelled_words
from stopgrad.evaluate.shared.splits import Images, LabelledSplits, open_labelled_splits
from stopgrad.metrics.paired import compare_paired
from stopgrad.reporter import QuietReporter, Reporter


@dataclass(frozen=True)
class FeatureTask:
    """What is evaluated, on which images and how."""

    encoder: Encoder
    run: RunDir | None
    splits: LabelledSplits
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


def open_task(
    encoder: str | Path | Encoder, train: Images | None, test: Images | None, *, holdout: float, baselines: bool,
    batch_size: int, device: str, precision: str | None, seed: int, reporter: Reporter | None,
) -> FeatureTask:  # fmt: skip
    """Open the encoder and the images; arguments as for the evaluations, `holdout` as for `open_labelled_splits`."""
    began = time.perf_counter()
    loaded, run = opened(encoder)
    kind = precision_for(precision, run, device)
    splits = open_labelled_splits(train, test, run, holdout=holdout, seed=seed)
    reporter = reporter or QuietReporter()
    return FeatureTask(loaded, run, splits, device, kind, batch_size, baselines, seed, reporter, began)


def classify(
    task: FeatureTask, evaluation: str, judge: Callable[[str, Features, Features | None], Judged],
    describe: Callable[[int, int], Description], *, centred: bool = True,
) -> Outcome:  # fmt: skip
    """Judge the trained features and the baselines, one after another, and keep the outcome in the run.

    Args:
        task: what is evaluated.
        evaluation: its name.
        judge: variant, training features and test features (None: there is one set) to what came of them.
        describe: how many training images and how many were judged, to what the trained network is measured by; called
            after the last variant.
        centred: whether mean-centred pixels are a variant of their own.
    """
    splits = task.splits
    scores: dict[str, Score] = {}
    details: dict[str, dict[str, Any]] = {}
    first: tuple[int, Tensor, dict[str, str], Judged] | None = None
    for variant, bank, queries in feature_variants(
        task.encoder, task.run, splits, task.device, batch_size=task.batch_size,
        precision=task.precision, baselines=task.baselines, seed=task.seed, reporter=task.reporter,
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
            tested = bank if queries is None else queries
            first = (len(bank), tested.labels, {**bank.skipped, **tested.skipped}, judged)
            del tested
        # Before the next features are made.
        del bank, queries
    assert first is not None
    num_train, labels, skipped, judged = first
    described = describe(num_train, len(labels))
    rest = [
        unlabelled_words(splits), f"features in {task.precision}", pixel_words(task.encoder, task.baselines)
    ]  # fmt: skip
    protocol, compared_by = (
        "; ".join(filter(None, [words, *rest])) for words in (described.words, described.compared_by or described.words)
    )
    per_class, confusions = by_class(judged.predicted, labels, splits.class_names)
    outcome = Outcome(
        evaluation=evaluation, encoder=task.encoder.name,
        protocol=protocol, compared_by=compared_by,
        settings={**described.settings, "preprocess": asdict(task.encoder.preprocess), "seed": task.seed,
                  "precision": task.precision, "num_unlabelled": splits.num_unlabelled},
        scores=scores, num_train=num_train, num_test=len(labels), per_class=per_class, confusions=confusions,
        details=details, seconds=round(time.perf_counter() - task.began, 1),
        skipped=[{"name": n, "reason": reason} for n, reason in skipped.items()],
    )  # fmt: skip
    if task.run is not None:
        outcome.keep_in(task.run, task.reporter)
    return outcome
