"""The result of an evaluation: accuracy with protocol, interval, per-class figures and confusions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from jaxtyping import Int
from scipy.special import stdtrit
from torch import Tensor

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.metrics.paired import Z
from stopgrad.reporter import Reporter

CONFUSIONS = 10


@dataclass(frozen=True)
class Score:
    """An accuracy in 0..1 with its 95% interval."""

    accuracy: float
    low: float
    high: float
    std: float | None = None
    """Deviation over draws, where there are several."""


@dataclass(frozen=True)
class Outcome:
    """The result of an evaluation: prints, is kept in the run, and goes on pages."""

    evaluation: str
    """`knn`, `linear`, `linear-augmented`, `finetune` or `few-label`."""
    encoder: str
    """What was evaluated."""
    protocol: str
    """Everything that the number depends on, in one line."""
    settings: Mapping[str, Any]
    """The same for programs."""
    scores: Mapping[str, Score]
    """By what was evaluated: `trained` first, then such as `untrained`, `pixels`, `pixels_centred`, `from_scratch`."""
    num_train: int
    num_test: int
    per_class: Mapping[str, Mapping[str, float]]
    """Class -> `accuracy` in 0..1 and `num`, of the trained features."""
    confusions: Sequence[Mapping[str, Any]]
    """The most confused pairs: `true`, `predicted`, `num`, and `share` of the true class."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only this evaluation has, such as the accuracy for each k."""
    seconds: float = 0.0
    compared_by: str = ""
    """The protocol without what was chosen on the training images, or came out; outcomes compare where this is equal.

    Empty: the protocol.
    """
    skipped: Sequence[Mapping[str, str]] = ()
    """Images that could not be read: `name` and `reason`."""

    @property
    def accuracy(self) -> float:
        """Of the trained features, in 0..1."""
        return self.scores["trained"].accuracy

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"evaluation": self.evaluation, "accuracy": self.accuracy, **asdict(self),
                "compared_by": self.compared_by or self.protocol}  # fmt: skip

    def keep_in(self, run: RunDir, reporter: Reporter) -> None:
        """Write evaluations/NAME.json into a run folder, in place of an earlier one; warn where that fails.

        Nothing is raised then: hours of work would be lost with it.
        """
        content = {**self.as_json(), "when": datetime.now(UTC).isoformat("T", "seconds")}
        try:
            run.write_evaluation(self.evaluation, content)
        except OSError as error:
            reporter.warn(
                f"the outcome of {self.evaluation} could not be saved in {run.path}: {error.strerror or error}. The "
                "run has none, or the earlier one; this one is only returned or printed."
            )


def score_of(num_right: float, num: int) -> Score:
    """The accuracy of `num_right` of `num` images, with Wilson's interval; `num_right` may be a mean over draws."""
    if num == 0:
        raise ValueError("no images were evaluated.")
    z, share = Z, num_right / num
    centre = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    return Score(share, max(0.0, centre - half), min(1.0, centre + half))


def score(predicted: Int[Tensor, "image"], labels: Int[Tensor, "image"]) -> Score:
    """The accuracy of predictions."""
    return score_of(int((predicted == labels).sum()), len(labels))


def score_over_draws(predicted: Int[Tensor, "draw image"], labels: Int[Tensor, "image"]) -> Score:
    """Mean accuracy over draws of what was learnt from, its deviation, and the mean's 95% interval by Student's t.

    The interval tells of the draws and not of the test images, which are the same for all; there are 2 draws at least.
    """
    accuracies = (predicted == labels).double().mean(dim=1)
    mean, std = float(accuracies.mean()), float(accuracies.std())
    half = float(stdtrit(len(accuracies) - 1, 0.975)) * std / math.sqrt(len(accuracies))
    return Score(mean, max(0.0, mean - half), min(1.0, mean + half), std)


def by_class(
    predicted: Int[Tensor, "*draw image"], labels: Int[Tensor, "image"], class_names: Sequence[str]
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Accuracy of each class that has images, and the most confused pairs, most first; of several draws, the mean."""
    num, num_draws = len(class_names), predicted.numel() // len(labels)
    truth, said = labels.repeat(num_draws), predicted.flatten()
    totals = torch.bincount(truth, minlength=num).tolist()
    right = torch.bincount(truth[said == truth], minlength=num).tolist()
    per_class = {
        name: {"accuracy": right[i] / totals[i], "num": totals[i] // num_draws}
        for i, name in enumerate(class_names)
        if totals[i]
    }
    # The pairs there are, and not all classes^2: these would be gigabytes for thousands of classes.
    pairs, counts = (truth * num + said)[said != truth].unique(return_counts=True)
    most = counts.argsort(descending=True, stable=True)[:CONFUSIONS]
    confusions = [
        {
            "true": class_names[pair // num], "predicted": class_names[pair % num], "num": round(count / num_draws),
            "share": count / totals[pair // num],
        }
        for pair, count in zip(pairs[most].tolist(), counts[most].tolist(), strict=True)
    ]  # fmt: skip
    return per_class, confusions
