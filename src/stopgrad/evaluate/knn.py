"""k-NN: exact, weighted by similarity, and leave-one-out where there is one set."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.features import Features
from stopgrad.errors import ConfigError
from stopgrad.evaluate.shared.classify import Description, Judged, classify, open_task
from stopgrad.evaluate.shared.outcome import Outcome, score
from stopgrad.evaluate.shared.splits import Images
from stopgrad.metrics.accuracy import knn_predict_each
from stopgrad.reporter import Reporter

USUAL_K = (1, 5, 20, 50, 200)
K, TEMPERATURE = 20, 0.1


def evaluate_knn(
    encoder: str | Path | Encoder, train: Images | None = None, test: Images | None = None, *,
    k: int | Sequence[int] = (), temperature: float | None = None, baselines: bool = True, batch_size: int = 0,
    device: str = "auto", precision: str | None = None, seed: int = 0, reporter: Reporter | None = None,
) -> Outcome:  # fmt: skip
    """Classify test images by a weighted vote of their nearest training images.

    Args:
        encoder: an encoder, or what `load_encoder` takes; in a run folder the outcome is saved.
        train: labelled images (a path or an `ImageSource`); None: those that the run was trained on.
        test: labelled images; None: the test images of `train`, or where it has none, each training image queries
            the others.
        k: numbers of neighbours; the first is reported. None: the run's own (else 20), and the usual ones beside.
        temperature: of the vote's weights, exp(cosine / temperature); None: the run's own, else 0.1.
        baselines: whether to measure an untrained network and raw pixels too.
        batch_size: images a forward pass; 0: chosen for the device.
        device: as the setting `device`.
        precision: what the networks compute in, as the setting `precision`; None: as the run did, else `auto`.
        seed: of the untrained network's weights.
        reporter: told of progress.

    Raises:
        ConfigError: k larger than the bank, a temperature that is not above 0, or no such precision.
        DataError: labels missing, one class only, or classes that differ between training and test images.
        CheckpointError: no encoder there.

    Source of the protocol: Wu et al. (arXiv 1805.01978), section 3.4.
    """
    if temperature is not None and not 0 < temperature < math.inf:
        raise ConfigError(f"temperature = {temperature}: must be above 0 and finite.")
    k = (k,) if isinstance(k, int) else k
    if any(number < 1 for number in k):
        raise ConfigError(f"k = {min(k)}: must be at least 1.")
    task = open_task(
        encoder, train, test, holdout=0.0, baselines=baselines, batch_size=batch_size, device=device,
        precision=precision, seed=seed, reporter=reporter,
    )  # fmt: skip
    splits, own = task.splits, task.run.read_config().monitoring if task.run is not None else None
    sharpness = temperature or (own.knn_temperature if own else TEMPERATURE)
    given, ks = k, list[int]()

    def judge(_: str, bank: Features, queries: Features | None) -> Judged:
        tested = bank if queries is None else queries
        if not ks:
            ks.extend(_numbers(given, own.knn_k if own else K, len(bank) - (queries is None)))
        predicted = knn_predict_each(
            bank.vectors, bank.labels, tested.vectors, ks=ks, temperature=sharpness,
            num_classes=len(splits.class_names), own=torch.arange(len(bank)) if queries is None else None,
        )  # fmt: skip
        by_k = {str(number): score(predicted[number], tested.labels).accuracy for number in ks}
        return Judged(score(predicted[ks[0]], tested.labels), predicted[ks[0]], {"by_k": by_k})

    def describe(num_train: int, num_tested: int) -> Description:
        which = (
            f"leave-one-out over {num_train:,} images of {splits.train_name}"
            if splits.test is None
            else f"bank of {num_train:,} ({splits.train_name}), queries {num_tested:,} ({splits.test_name})"
        )
        settings = {"k": ks[0], "ks": ks, "temperature": sharpness, "leave_one_out": splits.test is None}
        return Description(f"k-NN, k = {ks[0]}, T = {sharpness:g}, cosine; {which}", settings)

    return classify(task, "knn", judge, describe)


def _numbers(given: Sequence[int], usual: int, most: int) -> list[int]:
    """The numbers of neighbours, the headline first."""
    if too_many := [number for number in given if number > most]:
        raise ConfigError(f"k = {max(too_many)}: there are only {most:,} images to be neighbours.")
    if given:
        return list(dict.fromkeys(given))
    headline = min(usual, most)
    return [headline, *(number for number in USUAL_K if number <= most and number != headline)]
