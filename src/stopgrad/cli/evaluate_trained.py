"""stopgrad evaluate linear-augmented and finetune: the evaluations that train on images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stopgrad.cli.evaluate import Options, measured
from stopgrad.cli.loading import NOTHING, Loading


@Parameter(name="*")
@dataclass(frozen=True)
class TrainingOptions(Options):
    """What the evaluations that train on images take beside."""

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
        A run folder, a checkpoint, another program's weights or timm:NAME; the outcome is kept in a run folder.
    epochs
        Passes over the training images.
    optimizer
        sgd (momentum 0.9) or lars.
    weight_decay
        Of the linear layer.
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
        A run folder, a checkpoint, another program's weights or timm:NAME; the outcome is kept in a run folder.
    epochs
        Passes over the training images.
    optimizer
        sgd (momentum 0.9) or adamw.
    head_lr
        The linear layer's learning rate. Without it: the backbone's.
    weight_decay
        On weights. Without it: 1e-4 for sgd, 0.05 for adamw.
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
