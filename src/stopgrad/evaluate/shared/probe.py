"""A linear classifier on frozen features, its L2 penalty chosen without any test image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stopgrad.errors import DataError
from stopgrad.evaluate.shared.holdout import TO_TEST, hold_out
from stopgrad.metrics.logistic import (
    Design,
    LogisticFit,
    Standard,
    design_of,
    fit_logistic,
    log_probabilities,
    predict_logistic,
)

# L2 penalties beside the sum of the log-losses (scikit-learn's C is 1 over them), from the strongest to the weakest.
L2_GRID = tuple(10 ** (exponent / 2) for exponent in range(10, -9, -1))
# With few labels a finer grid, or a weaker penalty where all classes come apart, changes little but the time.
FEW_LABEL_GRID = tuple(10.0**exponent for exponent in range(4, -4, -1))
# Values in a row that are neither more often right nor clearly more probable, after which no weaker one is tried.
PATIENCE = 3
# By which share of it the log-loss must fall to count: where classes come apart it falls a little for ever.
GAIN = 0.01
CHOICE_TOLERANCE = 1e-4
HELD_ROWS = 8192


@dataclass(frozen=True)
class Choice:
    """The penalty chosen, and what was tried."""

    l2: float
    curve: Sequence[dict[str, float]]
    """`l2`, `accuracy` and `log_loss` on the images held out, from the strongest penalty on."""
    at_edge: bool
    """Whether it is the first or last of the grid, so that a better one may lie outside."""
    start: LogisticFit | None
    """The fit it was judged by, to start the last one from; None where there were several."""


@dataclass(frozen=True)
class Probe:
    """A linear classifier fitted to features."""

    design: Design
    fit: LogisticFit
    classes: Tensor
    """The number of each class that it knows."""

    def predict(self, features: Tensor) -> Tensor:
        """The class of each image, from features that are not standardised."""
        return self.classes[predict_logistic(features, self.design, self.fit)]


def held_out_first(labels: Tensor, share: float, seed: int) -> tuple[Tensor, int]:
    """An order of the images with a share of each class, but never all of it, in front; and how many these are."""
    held = hold_out(labels, share, seed, purpose=TO_TEST)
    return torch.cat([held.nonzero()[:, 0], (~held).nonzero()[:, 0]]), int(held.sum())


def folds(labels: Tensor, num: int, seed: int) -> list[Tensor]:
    """Which images are held out in each of `num` folds, each class spread over them evenly."""
    rng = np.random.Generator(np.random.PCG64(seed))
    part = np.full(len(labels), -1)
    for label in labels.unique().tolist():
        members = rng.permutation(np.flatnonzero(labels.cpu().numpy() == label))
        part[members] = np.arange(len(members)) % num
    held = torch.from_numpy(part).to(labels.device)
    return [held == fold for fold in range(num)]


def choose_l2(
    parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], moment: Tensor, num_classes: int, *,
    grid: Sequence[float] = L2_GRID, by_accuracy: bool = True, progress: Callable[[int, int], None] | None = None,
) -> Choice:  # fmt: skip
    """The penalty that is best for images held out, tried from the strongest on until it no longer helps.

    Args:
        parts: rows and labels to fit on, rows and labels held out, one or several times.
        moment: of the rows' design.
        num_classes: each of which every part to fit on has.
        grid: penalties, from the strongest to the weakest; each fit starts from the one before.
        by_accuracy: whether the best is the most often right, and of equals the most probable; else the most probable
            (lowest log-loss), which a few images judge with less noise.
        progress: called with (penalties tried, penalties in all).
    """
    fits: list[LogisticFit | None] = [None] * len(parts)
    best_fit: LogisticFit | None = None
    curve: list[dict[str, float]] = []
    best, best_accuracy, lowest = (-float("inf"),) * 2, -1.0, float("inf")
    since = chosen = 0
    num = sum(len(held_labels) for *_, held_labels in parts)
    for step, l2 in enumerate(grid):
        right, log_loss = 0, 0.0
        for i, (rows, labels, held, held_labels) in enumerate(parts):
            fit = fit_logistic(
                rows, labels, num_classes=num_classes, l2=l2, moment=moment, start=fits[i], tolerance=CHOICE_TOLERANCE
            )
            fits[i] = fit
            for some, own in zip(held.split(HELD_ROWS), held_labels.split(HELD_ROWS), strict=True):
                log_p = log_probabilities(some, fit)
                right += int((log_p.argmax(dim=1) == own).sum())
                log_loss -= float(log_p.gather(1, own[:, None]).sum(dtype=torch.float64))
        accuracy, log_loss = right / num, log_loss / num
        curve.append({"l2": l2, "accuracy": accuracy, "log_loss": log_loss})
        if progress is not None:
            progress(step + 1, len(grid))
        better = (by_accuracy and accuracy > best_accuracy) or log_loss < (1 - GAIN) * lowest
        since = 0 if better else since + 1
        best_accuracy, lowest = max(best_accuracy, accuracy), min(lowest, log_loss)
        value = (accuracy if by_accuracy else 0.0, -log_loss)
        if value > best:
            best, chosen, best_fit = value, step, fits[0] if len(parts) == 1 else None
        if since >= PATIENCE:
            break
    if progress is not None:
        progress(len(grid), len(grid))
    return Choice(grid[chosen], curve, chosen in (0, len(grid) - 1), best_fit)


def fit_probe(
    features: Tensor, labels: Tensor, standard: Standard, *, l2: float | None = None, holdout: float = 0.2,
    num_folds: int = 0, grid: Sequence[float] = L2_GRID, by_accuracy: bool = True, seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Probe, Choice | None]:  # fmt: skip
    """Choose the penalty on a part of the images, then fit on all of them.

    Args:
        features: `[image dim]`, any scale.
        labels: a class number each; there are two at least.
        standard: what the features are standardised by.
        l2: the penalty; None: it is chosen.
        holdout: share of each class that the choice is judged by.
        num_folds: instead of `holdout`, so many folds, each of which is held out once.
        grid, by_accuracy, progress: as for `choose_l2`.
        seed: of what is held out.

    Raises:
        DataError: the penalty is to be chosen, and no class has two images.
    """
    classes, numbers = labels.unique(return_inverse=True)
    order, num_held = held_out_first(numbers, holdout, seed)
    design = design_of(features, standard, order)
    rows, numbers = design.rows, numbers[order]
    choice = None
    if l2 is None:
        if not num_held:
            raise DataError(
                "every class has one training image only, so that no image can judge the L2 penalty: give it (--l2)."
            )
        if num_folds:
            parts = [
                (rows[~held], numbers[~held], rows[held], numbers[held]) for held in folds(numbers, num_folds, seed)
            ]
        else:
            # Parts of one tensor, not copies.
            parts = [(rows[num_held:], numbers[num_held:], rows[:num_held], numbers[:num_held])]
        choice = choose_l2(parts, design.moment, len(classes), grid=grid, by_accuracy=by_accuracy, progress=progress)
        l2 = choice.l2
    fit = fit_logistic(
        rows, numbers, num_classes=len(classes), l2=l2, moment=design.moment,
        start=choice.start if choice is not None else None,
    )  # fmt: skip
    return Probe(design, fit, classes), choice


def choice_words(grid: Sequence[float] = L2_GRID) -> str:
    """What the penalty was chosen from, for a protocol."""
    return f"{grid[-1]:.0e} to {grid[0]:.0e}"


def fit_details(probe: Probe, choice: Choice | None, l2: float) -> dict[str, Any]:
    """What is kept of a fit."""
    return {
        "l2": l2, "converged": probe.fit.converged, "num_iterations": probe.fit.num_iterations,
        "gradient": probe.fit.gradient, "at_edge": choice is not None and choice.at_edge,
        "curve": list(choice.curve) if choice is not None else [],
    }  # fmt: skip
