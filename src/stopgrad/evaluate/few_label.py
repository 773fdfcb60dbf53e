"""Evaluation with few labels: several class-balanced draws, each judged by all test images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.features import Features
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluate.shared.classify import Description, Judged, classify, open_task
from stopgrad.evaluate.shared.outcome import Outcome, Score, score_of, score_over_draws
from stopgrad.evaluate.shared.prepare import solver_device
from stopgrad.evaluate.shared.probe import FEW_LABEL_GRID, Probe, choice_words, fit_probe
from stopgrad.evaluate.shared.splits import Images
from stopgrad.metrics.accuracy import knn_predict
from stopgrad.metrics.logistic import Standard, standard_of
from stopgrad.reporter import QuietReporter, Reporter

PERCENT = (1.0, 10.0)
DRAWS = 5
HOLDOUT = 0.2
# The penalty where every class has one label, so that none can be held out: scikit-learn's default.
FIXED_L2 = 1.0
FOLDS = 5
# From so many labels a class on, a fifth of them held out once says as much as folds.
MANY = 50
K, TEMPERATURE = 20, 0.1


@dataclass(frozen=True)
class Amount:
    """How many labels are drawn."""

    name: str
    """Such as `1%`, or `5 a class`."""
    per_class: int
    num: int
    """In all: fewer than per_class of each class where one has not so many."""
    num_short: int
    """Classes that have fewer images, which are all taken."""
    scarcest: int
    """Labels of the class that has fewest: they decide how the penalty is chosen."""
    is_all: bool
    """Whether every draw takes all the labels there are."""


def evaluate_few_label(
    encoder: str | Path | Encoder, train: Images | None = None, test: Images | None = None, *,
    percent: float | Sequence[float] = (), labels_per_class: int | Sequence[int] = (), draws: int = DRAWS,
    baselines: bool = True, batch_size: int = 0, device: str = "auto", precision: str | None = None, seed: int = 0,
    reporter: Reporter | None = None,
) -> Outcome:  # fmt: skip
    """Linear evaluation and k-NN with the labels of a few training images, as many of each class.

    The features are standardised by all training images, which takes no label. The L2 penalty is chosen by log-loss
    within the labels drawn: by five folds, or as many as there are labels a class; from 50 labels a class on by a fifth
    held out; with one label a class it is 1. k-NN asks as many neighbours as the run does, but no more than there are
    labels a class.

    Args:
        encoder, train, test, baselines, batch_size, device, precision, reporter: as for `evaluate_linear`.
        percent: how many labels, as percentages of the labelled training images; each class gives the same number, at
            least one, or all that it has; 100 is all the labels. Neither this nor `labels_per_class`: 1 and 10.
        labels_per_class: how many labels of each class.
        draws: how many draws for each number, 2 or more.
        seed: of the first draw, `seed + 1` of the second and so on; of what is held out, and of the untrained network.

    Returns:
        An outcome whose scores are the mean over draws of the linear classifier with the first number of labels, their
        deviation, and the 95% interval of the mean by Student's t; `details["by_labels"]` has all of them. Where each
        draw takes all the labels there are, draws tell nothing, and the interval is Wilson's over the test images.

    Raises:
        ConfigError: a number out of range.
        DataError: a class with fewer images than `labels_per_class`, or as `evaluate_linear`.
    """
    shares = (percent,) if isinstance(percent, (int, float)) else percent
    numbers = (labels_per_class,) if isinstance(labels_per_class, int) else labels_per_class
    for share in shares:
        if not 0 < share <= 100:
            raise ConfigError(f"percent = {share:g}: must be above 0 and at most 100.")
    if any(number < 1 for number in numbers):
        raise ConfigError(f"labels_per_class = {min(numbers)}: must be at least 1.")
    if draws < 2:
        raise ConfigError(f"draws = {draws}: a standard deviation needs at least 2.")
    reporter = reporter or QuietReporter()
    task = open_task(
        encoder, train, test, holdout=HOLDOUT, baselines=baselines, batch_size=batch_size, device=device,
        precision=precision, seed=seed, reporter=reporter,
    )  # fmt: skip
    own = task.run.read_config().monitoring if task.run is not None else None
    most_k, temperature = (own.knn_k, own.knn_temperature) if own is not None else (K, TEMPERATURE)
    num_classes = len(task.splits.class_names)
    amounts: list[Amount] = []
    unsettled: list[str] = []
    of_pixels: dict[tuple[str, int], tuple[Tensor, float]] = {}

    def judge(variant: str, bank: Features, queries: Features | None) -> Judged:
        assert queries is not None
        if not amounts:
            amounts.extend(_amounts(bank.labels, bank.class_names, shares, numbers, task.splits.test_name))
        place = solver_device(device, bank.vectors)
        vectors, query_vectors = bank.vectors.to(place), queries.vectors.to(place)
        standard = standard_of(vectors)
        found: dict[str, Any] = {}
        headline: Tensor | None = None
        for amount in amounts:
            linear, knn, penalties = [], [], []
            for draw in range(draws):
                reporter.progress(f"{amount.name} of the labels, {variant}", draw, draws)
                index = draw_labels(bank.labels, amount.per_class, seed + draw)
                some, labels = vectors[index.to(place)], bank.labels[index].to(place)
                # Standardised, a common shift makes no difference.
                said = of_pixels.get((amount.name, draw)) if variant == "pixels_centred" else None
                if said is None:
                    probe, l2 = _fit(some, labels, standard, seed + draw)
                    said = probe.predict(query_vectors).cpu(), l2
                    if not probe.fit.converged:
                        unsettled.append(f"{amount.name}, {variant}")
                if variant == "pixels":
                    of_pixels[amount.name, draw] = said
                linear.append(said[0])
                penalties.append(said[1])
                knn.append(knn_predict(
                    some, labels, query_vectors, k=min(most_k, amount.per_class), temperature=temperature,
                    num_classes=num_classes,
                ).cpu())  # fmt: skip
            reporter.progress(f"{amount.name} of the labels, {variant}", draws, draws)
            found[amount.name] = {
                "linear": asdict(_scored(torch.stack(linear), queries.labels, amount)),
                "knn": asdict(_scored(torch.stack(knn), queries.labels, amount)),
                "l2": penalties,
            }
            if headline is None:
                headline = torch.stack(linear)
        assert headline is not None
        return Judged(_scored(headline, queries.labels, amounts[0]), headline, {"by_labels": found})

    def describe(num_train: int, num_tested: int) -> Description:
        if unsettled:
            reporter.warn(
                f"{len(unsettled)} linear classifiers have not converged: {'; '.join(sorted(set(unsettled)))}."
            )
        words = (
            f"few labels: {', '.join(map(_amount_words, amounts))}; {draws} draws, seeds {seed} to {seed + draws - 1}; "
            f"linear classifier, features standardised by all {num_train:,} training images without labels, L2 chosen "
            f"by log-loss within the labels drawn, from {choice_words(FEW_LABEL_GRID)} ({_rules(amounts)}); k-NN, k = "
            f"{', '.join(str(min(most_k, amount.per_class)) for amount in amounts)}, T = {temperature:g}, cosine; "
            f"{task.splits.train_name}, judged by {num_tested:,} ({task.splits.test_name}); "
            f"{_interval_words(amounts)}"
        )
        return Description(words, {
            "amounts": [asdict(amount) for amount in amounts], "draws": draws,
            "draw_seeds": list(range(seed, seed + draws)), "knn_k": most_k, "knn_temperature": temperature,
            "converged": not unsettled,
        })  # fmt: skip

    return classify(task, "few-label", judge, describe)


def _fit(some: Tensor, labels: Tensor, standard: Standard, seed: int) -> tuple[Probe, float]:
    """The classifier of one draw, and its penalty."""
    scarcest = int(labels.unique(return_counts=True)[1].min())
    probe, choice = fit_probe(
        some, labels, standard, l2=None if scarcest > 1 else FIXED_L2, holdout=HOLDOUT,
        num_folds=0 if scarcest >= MANY else min(FOLDS, scarcest), grid=FEW_LABEL_GRID, by_accuracy=False, seed=seed,
    )  # fmt: skip
    return probe, FIXED_L2 if choice is None else choice.l2


def draw_labels(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Places of `per_class` images of each class, or all it has, in ascending order."""
    rng = np.random.Generator(np.random.PCG64(seed))
    array = labels.numpy()
    drawn = [rng.permutation(np.flatnonzero(array == label))[:per_class] for label in np.unique(array)]
    return torch.from_numpy(np.sort(np.concatenate(drawn)))


def _amounts(
    labels: Tensor,
    class_names: Sequence[str],
    percent: Sequence[float],
    labels_per_class: Sequence[int],
    test_name: str,
) -> list[Amount]:
    present, counts = labels.unique(return_counts=True)
    wanted: dict[str, int] = {}
    for share in percent or (() if labels_per_class else PERCENT):
        # All of them, where classes differ in size too.
        even = len(labels) / len(present) if share < 100 else int(counts.max())
        wanted[f"{share:g}%"] = max(1, round(share / 100 * even))
    for number in labels_per_class:
        least = int(counts.argmin())
        if number > counts[least]:
            raise DataError(
                f"labels_per_class = {number}: class {class_names[int(present[least])]!r} has only "
                f"{int(counts[least])} training images (test images: {test_name}); ask for fewer, or give a "
                "percentage, to which such classes give all they have."
            )
        wanted[f"{number} a class"] = number
    return [
        Amount(
            name,
            number,
            int(counts.clamp(max=number).sum()),
            int((counts < number).sum()),
            min(number, int(counts.min())),
            bool((counts <= number).all()),
        )
        for name, number in wanted.items()
    ]


def _scored(predicted: Tensor, labels: Tensor, amount: Amount) -> Score:
    """Mean, standard deviation and interval; over identical draws Student's t would claim certainty."""
    found = score_over_draws(predicted, labels)
    if not amount.is_all:
        return found
    over_images = score_of(found.accuracy * len(labels), len(labels))
    return replace(found, low=over_images.low, high=over_images.high)


def _interval_words(amounts: Sequence[Amount]) -> str:
    everything = ", ".join(amount.name for amount in amounts if amount.is_all)
    if not everything:
        return "intervals over draws"
    words = f"for {everything}, where every draw is all the labels, intervals over test images (Wilson)"
    return words if all(amount.is_all for amount in amounts) else f"intervals over draws; {words}"


def _amount_words(amount: Amount) -> str:
    words = f"{amount.name} ({amount.per_class} a class, {amount.num:,} in all"
    if amount.name.endswith("a class"):
        words = f"{amount.name} ({amount.num:,} in all"
    if amount.num_short:
        have = "class has fewer and gives" if amount.num_short == 1 else "classes have fewer and give"
        words += f"; {amount.num_short} {have} all"
    return f"{words})"


def _rules(amounts: Sequence[Amount]) -> str:
    rules = []
    for amount in amounts:
        if amount.scarcest == 1:
            rules.append(f"{amount.name}: fixed at {FIXED_L2:g}")
        elif amount.scarcest >= MANY:
            rules.append(f"{amount.name}: a fifth held out")
        else:
            rules.append(f"{amount.name}: {min(FOLDS, amount.scarcest)} folds")
    return ", ".join(rules)
