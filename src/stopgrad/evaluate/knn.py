"""k-NN: exact, weighted by similarity, and leave-one-out where there is one set."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stopgrad.encoder.embed import Encoder
from stopgrad.encoder.features import Features
from stopgrad.errors import ConfigError
from stopgrad.evaluate.baselines import feature_variants
from stopgrad.evaluate.outcome import Outcome, Score, by_class, score
from stopgrad.evaluate.sides import Images, open_sides
from stopgrad.evaluate.subject import opened, pixel_words
from stopgrad.metrics.accuracy import knn_predict_each
from stopgrad.reporter import QuietReporter, Reporter

USUAL_K = (1, 5, 20, 50, 200)
K, TEMPERATURE = 20, 0.1


def evaluate_knn(
    encoder: str | Path | Encoder, train: Images | None = None, test: Images | None = None, *, k: Sequence[int] = (),
    temperature: float | None = None, baselines: bool = True, batch_size: int = 0, device: str = "auto", seed: int = 0,
    reporter: Reporter | None = None,
) -> Outcome:  # fmt: skip
    """Classify test images by a weighted vote of their nearest training images.

    Args:
        encoder: an encoder, or what `load_encoder` takes; the outcome is kept in a run folder.
        train: labelled images (a path or an `ImageSource`); None: those that the run was trained on.
        test: labelled images; None: the test images of `train`, or where it has none, each training image queries
            the others.
        k: numbers of neighbours; the first is the headline. None: the run's own (else 20), and the usual ones beside.
        temperature: of the vote's weights, exp(cosine / temperature); None: the run's own, else 0.1.
        baselines: whether to measure an untrained network and raw pixels too.
        batch_size: images a forward pass; 0: what the device is fast at.
        device: as the setting `device`.
        seed: of the untrained network's weights.
        reporter: told of progress.

    Raises:
        ConfigError: k larger than the bank, or a temperature that is not above 0.
        DataError: labels missing, one class only, or classes that differ between the sides.
        CheckpointError: no encoder there.

    Source of the protocol: Wu et al. (arXiv 1805.01978), section 3.4.
    """
    began = time.perf_counter()
    reporter = reporter or QuietReporter()
    if temperature is not None and not temperature > 0:
        raise ConfigError(f"temperature = {temperature}: must be above 0.")
    if any(number < 1 for number in k):
        raise ConfigError(f"k = {min(k)}: must be at least 1.")
    subject, run = opened(encoder)
    sides = open_sides(train, test, run)
    own = run.read_config().monitoring if run is not None else None
    temperature = temperature or (own.knn_temperature if own else TEMPERATURE)
    scores: dict[str, Score] = {}
    by_k: dict[str, dict[str, float]] = {}
    ks: list[int] = []
    first: tuple[Features, Features] | None = None
    judged: torch.Tensor | None = None
    for variant, bank, queries in feature_variants(
        subject, sides, device, batch_size=batch_size, baselines=baselines, seed=seed, reporter=reporter
    ):
        asked = bank if queries is None else queries
        if first is None:
            ks = _numbers(k, own.knn_k if own else K, len(bank) - (queries is None))
        predicted = knn_predict_each(
            bank.vectors, bank.labels, asked.vectors, ks=ks, temperature=temperature,
            num_classes=len(sides.class_names), own=torch.arange(len(bank)) if queries is None else None,
        )  # fmt: skip
        scores[variant] = score(predicted[ks[0]], asked.labels)
        by_k[variant] = {str(number): score(predicted[number], asked.labels).accuracy for number in ks}
        if first is None:
            first, judged = (bank, asked), predicted[ks[0]]
    assert first is not None
    assert judged is not None
    bank, asked = first
    alone = sides.test is None
    which = (
        f"each of {len(bank):,} images of {sides.train_name} asks the others (leave-one-out)" if alone
        else f"bank of {len(bank):,} ({sides.train_name}), queries {len(asked):,} ({sides.test_name})"
    )  # fmt: skip
    per_class, confusions = by_class(judged, asked.labels, sides.class_names)
    skipped = {**bank.skipped, **asked.skipped}
    settings: dict[str, Any] = {"k": ks[0], "ks": ks, "temperature": temperature, "leave_one_out": alone,
                                "preprocess": asdict(subject.preprocess), "seed": seed}  # fmt: skip
    outcome = Outcome(
        evaluation="knn", encoder=subject.name, settings=settings, scores=scores,
        protocol=f"k-NN, k = {ks[0]}, T = {temperature:g}, cosine; {which}; {pixel_words(subject, baselines)}",
        num_train=len(bank), num_test=len(asked), per_class=per_class, confusions=confusions, details={"by_k": by_k},
        seconds=round(time.perf_counter() - began, 1),
        skipped=[{"name": name, "reason": reason} for name, reason in skipped.items()],
    )  # fmt: skip
    if run is not None:
        outcome.keep_in(run)
    return outcome


def _numbers(given: Sequence[int], usual: int, most: int) -> list[int]:
    """The numbers of neighbours, the headline first."""
    if too_many := [number for number in given if number > most]:
        raise ConfigError(f"k = {max(too_many)}: there are only {most:,} images to be neighbours.")
    if given:
        return list(dict.fromkeys(given))
    headline = min(usual, most)
    return [headline, *(number for number in USUAL_K if number <= most and number != headline)]
