"""stopgrad evaluate: an accuracy with its protocol, by several evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter, Token
from cyclopts.validators import Number

import stopgrad
from stopgrad.cli.shared.console import ConsoleReporter, print_json
from stopgrad.cli.shared.encoder_flags import NOTHING, Loading
from stopgrad.cli.shared.outcome import print_outcome
from stopgrad.cli.shared.settings import whole_number
from stopgrad.data.place import check_there

evaluate = App(name="evaluate", help="Measure what a backbone is worth, on labelled images.", help_format="plaintext")


def _whole_numbers(type_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    return tuple(whole_number(int, [token]) for token in tokens)


NOT_NEGATIVE = Parameter(converter=whole_number, validator=Number(gte=0))


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options of every evaluation."""

    train: str | None = None
    "Labelled training images: a folder with a subfolder for each class, or as for pretrain. Without it: the run's own."
    test: str | None = None
    "Labelled test images. Without it: the test images that come with --train."
    baselines: bool = True
    "Measure an untrained network and raw pixels too, where the evaluation can."
    batch_size: Annotated[int, NOT_NEGATIVE] = 0
    "Images a forward pass; 0: chosen for the device."
    device: str = "auto"
    "cpu, cuda, cuda:1, mps or auto."
    precision: str | None = None
    "What the network computes in: fp32, bf16, or auto: bf16 where the hardware is fast at it. Without it: as the run."
    seed: Annotated[int, NOT_NEGATIVE] = 0
    "Seed of all random draws."
    json: Annotated[bool, Parameter(negative="")] = False
    "Print one JSON object on stdout and everything else on stderr."

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of the functions in Python."""
        return {name: value for name, value in vars(self).items() if name != "json"}


def measured(evaluation: str, encoder: str, options: Options, loading: Loading, **more: Any) -> None:
    """Run an evaluation, by its name in Python, and print what it found."""
    encoder = loading.of(encoder)
    for data in (options.train, options.test):
        if data:
            check_there(data)
    function = getattr(stopgrad, evaluation)
    with ConsoleReporter(json=options.json) as reporter:
        outcome = function(encoder, **options.arguments(), **more, reporter=reporter)
    if options.json:
        print_json(outcome.as_json())
    else:
        print_outcome(outcome)


@evaluate.command
def knn(
    encoder: str, /, *, k: Annotated[
        tuple[int, ...], Parameter(consume_multiple=True, negative="", converter=_whole_numbers)
    ] = (),
    temperature: float | None = None, options: Options = Options(), loading: Loading = NOTHING,
) -> None:  # fmt: skip
    """Weighted vote of the nearest neighbours by cosine; leave-one-out where there is one set.

    Parameters
    ----------
    encoder
        A run folder, a checkpoint, another program's weights or timm:NAME; in a run folder the outcome is saved.
    k
        Numbers of neighbours, one or several; the first is reported. Without it: the run's own, and the usual ones.
    temperature
        Of the vote's weights, exp(cosine / temperature). Without it: the run's own.
    """
    measured("evaluate_knn", encoder, options, loading, k=k, temperature=temperature)


@evaluate.command
def linear(
    encoder: str, /, *, l2: float | None = None, options: Options = Options(), loading: Loading = NOTHING
) -> None:
    """Linear classifier on frozen features, fitted to its optimum; a fifth of each class judges where there is one set.

    Parameters
    ----------
    encoder
        A run folder, a checkpoint, another program's weights or timm:NAME; in a run folder the outcome is saved.
    l2
        The L2 penalty, 1 / C of scikit-learn. Without it: chosen on a fifth of the training images.
    """
    measured("evaluate_linear", encoder, options, loading, l2=l2)


@evaluate.command(name="few-label")
def few_label(
    encoder: str, /, *, percent: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = (),
    labels_per_class: Annotated[
        tuple[int, ...], Parameter(consume_multiple=True, negative="", converter=_whole_numbers)
    ] = (),
    draws: Annotated[int, NOT_NEGATIVE] = 5,
    options: Options = Options(), loading: Loading = NOTHING,
) -> None:  # fmt: skip
    """Linear classifier and k-NN with few labels, class-balanced: mean and standard deviation over several draws.

    Parameters
    ----------
    encoder
        A run folder, a checkpoint, another program's weights or timm:NAME; in a run folder the outcome is saved.
    percent
        How many labels, as percentages of the training images, one or several. Without either: 1 and 10.
    labels_per_class
        How many labels of each class, one or several.
    draws
        How many draws, by the seeds from --seed on.
    """
    measured(
        "evaluate_few_label", encoder, options, loading, percent=percent, labels_per_class=labels_per_class, draws=draws
    )


# By name: that module needs what stands here. Without their words here, the list of commands would have none.
evaluate.command(
    "stopgrad.cli.evaluate:linear_augmented", name="linear-augmented",
    help="One linear layer on the frozen backbone, trained on cropped and mirrored images: the papers' protocol.",
)  # fmt: skip
evaluate.command(
    "stopgrad.cli.evaluate:finetune", name="finetune",
    help="Backbone and linear layer trained end to end, beside the same network trained from scratch.",
)  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True)
class TrainingOptions(Options):
    """Further options of evaluations that train on images."""

    batch_size: int = 0
    "Images a step; 0: chosen by the evaluation."
    baselines: bool = True
    "Do the same with the untrained network, to show what pretraining is worth."
    lr: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = ()
    "Learning rate for a batch of 256; of several the best on training images held out is chosen."
    crop_scale_min: float | None = None
    "Smallest crop as a share of the image's area. Without it: 0.08."
    flip: bool | None = None
    "Mirror half of the images. Without it: as the run did."
    workers: int = 0
    "Threads that decode and crop; 0: one per core."
    cache: str = "auto"
    "Where decoded images are kept: auto, off or a folder."


def linear_augmented(
    encoder: str, /, *, epochs: int = 90, optimizer: str = "sgd", weight_decay: float = 0.0,
    options: TrainingOptions = TrainingOptions(), loading: Loading = NOTHING,
) -> None:  # fmt: skip
    """One linear layer on the frozen backbone, trained on cropped and mirrored images: the papers' protocol.

    Parameters
    ----------
    encoder
        A run folder, a checkpoint, another program's weights or timm:NAME; in a run folder the outcome is saved.
    epochs
        Passes over the training images.
    optimizer
        sgd (momentum 0.9) or lars.
    weight_decay
        Optimizer of the linear layer.
    """
    measured(
        "evaluate_linear_augmented", encoder, options, loading, epochs=epochs, optimizer=optimizer,
        weight_decay=weight_decay,
    )  # fmt: skip


def finetune(
    encoder: str, /, *, epochs: int = 30, optimizer: str = "sgd", head_lr: float | None = None,
    weight_decay: float | None = None, warmup_epochs: float | None = None, label_smoothing: float = 0.0,
    labels: float = 1.0, out: Path | None = None, overwrite: Annotated[bool, Parameter(negative="")] = False,
    options: TrainingOptions = TrainingOptions(), loading: Loading = NOTHING,
) -> None:  # fmt: skip
    """Backbone and linear layer trained end to end, beside the same network trained from scratch.

    Parameters
    ----------
    encoder
        A run folder, a checkpoint, another program's weights or timm:NAME; in a run folder the outcome is saved.
    epochs
        Passes over the training images.
    optimizer
        sgd (momentum 0.9) or adamw.
    head_lr
        The linear layer's learning rate. Without it: the backbone's.
    weight_decay
        Weight decay, on weights only. Without it: 1e-4 for sgd, 0.05 for adamw.
    warmup_epochs
        Linear warm-up of the learning rate. Without it: a tenth of the epochs.
    label_smoothing
        Share of the target spread over all classes.
    labels
        Share of each class's training images to use, such as 0.01; at least one image.
    out
        A folder for the fine-tuned network: the encoder's format, with head.safetensors and head.json beside it.
    overwrite
        Replace an earlier network in --out.
    """
    measured(
        "evaluate_finetune", encoder, options, loading, epochs=epochs, optimizer=optimizer, head_lr=head_lr,
        weight_decay=weight_decay, warmup_epochs=warmup_epochs, label_smoothing=label_smoothing, labels=labels,
        out=out, overwrite=overwrite,
    )  # fmt: skip
