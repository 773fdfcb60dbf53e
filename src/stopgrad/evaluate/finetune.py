"""Fine-tuning: the backbone trained end to end with labels, beside the same network trained from scratch."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stopgrad.data.sources import Subset
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.features import extract, features_of
from stopgrad.errors import ConfigError, NonFiniteLossError
from stopgrad.evaluate.shared.baselines import fresh_network
from stopgrad.evaluate.shared.classifier import check_free, save_classifier
from stopgrad.evaluate.shared.crops import FrozenBackbone, crops_config, crops_words, load_crops
from stopgrad.evaluate.shared.holdout import draw_share
from stopgrad.evaluate.shared.outcome import Outcome, score
from stopgrad.evaluate.shared.prepare import opened, requested_precision
from stopgrad.evaluate.shared.splits import Images, open_labelled_splits
from stopgrad.evaluate.shared.trained import (
    TEST_SHARE,
    Judged,
    Task,
    check_rate,
    check_training,
    conclude,
    hold_out_to_choose,
)
from stopgrad.evaluate.shared.tuning import Classifier, Tuning, tune
from stopgrad.hardware import choose_precision
from stopgrad.loader.labelled import LabelledViews
from stopgrad.reporter import QuietReporter, Reporter

LEARNING_RATES = {"sgd": (0.1,), "adamw": (1e-3,)}
"""For a batch of 256."""
WEIGHT_DECAYS = {"sgd": 1e-4, "adamw": 0.05}
EPOCHS, LARGEST_BATCH, SMALLEST_BATCH = 30, 128, 16


def evaluate_finetune(
    encoder: str | Path | Encoder, train: Images | None = None, test: Images | None = None, *, epochs: int = EPOCHS,
    lr: Sequence[float] = (), head_lr: float | None = None, optimizer: str = "sgd", weight_decay: float | None = None,
    warmup_epochs: float | None = None, label_smoothing: float = 0.0, labels: float = 1.0, batch_size: int = 0,
    crop_scale_min: float | None = None, flip: bool | None = None, baselines: bool = True,
    out: str | Path | None = None, overwrite: bool = False, precision: str | None = None, workers: int = 0,
    cache: str = "auto", device: str = "auto", seed: int = 0, reporter: Reporter | None = None,
) -> Outcome:  # fmt: skip
    """Train the backbone and a linear layer on it with labels; test the network once, after the last epoch.

    The encoder itself is not changed. Images are cropped and mirrored at random, their colours left as they are;
    BatchNorm is in train mode; the learning rate rises for a tenth of the epochs and falls by a cosine.

    Args:
        encoder: an encoder, or what `load_encoder` takes; in a run folder the outcome is saved.
        train: labelled images (a path or an `ImageSource`); None: those that the run was trained on.
        test: labelled images; None: the test images of `train`, or a fifth of each class where it has none.
        epochs: passes over the training images.
        lr: learning rate for a batch of 256, scaled by batch size / 256; none: `LEARNING_RATES`. Of several, the best
            on a tenth of each class held out is chosen, for each network by itself, and then all images are used.
        head_lr: the linear layer's; None: the backbone's.
        optimizer: "sgd" with momentum 0.9, or "adamw".
        weight_decay: on weights, not on biases and normalisation; None: 1e-4 for sgd, 0.05 for adamw.
        warmup_epochs: of the learning rate; None: a tenth of the epochs.
        label_smoothing: share of the target spread over all classes, from 0 and below 1.
        labels: share of each class's training images that is used, at least one image.
        batch_size: images a step; 0: 128, fewer where that is less than 8 steps an epoch.
        crop_scale_min: smallest crop as a share of the image's area; None: 0.08.
        flip: whether to mirror half of the images; None: as the run did, else yes.
        baselines: whether to train the same network from scratch as well, in the same way and for as long.
        out: a folder for the fine-tuned network (see `save_classifier`).
        overwrite: replace what is there.
        precision, workers, cache, device: as the settings of these names; precision None: as the run did, else `auto`.
        seed: of order, crops, initial weights and choices of images.
        reporter: told of progress.

    Raises:
        ConfigError: a value out of range, `out` taken, or rates to choose among and one image a class.
        DataError: labels missing, one class only, or classes that differ between training and test images.
        NonFiniteLossError: the loss is no number any more.
        CheckpointError: no encoder there.
    """
    began = time.perf_counter()
    reporter = reporter or QuietReporter()
    rates = check_training(epochs, lr, optimizer, weight_decay, LEARNING_RATES)
    weight_decay = WEIGHT_DECAYS[optimizer] if weight_decay is None else weight_decay
    warmup_epochs = epochs / 10 if warmup_epochs is None else warmup_epochs
    _check(epochs, head_lr, warmup_epochs, label_smoothing, labels)
    loaded, run = opened(encoder)
    requested = requested_precision(precision, run)
    if out is not None:
        check_free(loaded, out, overwrite=overwrite)
    splits = open_labelled_splits(train, test, run, holdout=TEST_SHARE, seed=seed)
    source = splits.train
    if labels < 1:
        classes = torch.tensor([source.label(i) for i in range(len(source))])
        source = Subset(source, draw_share(classes, labels, seed).nonzero().flatten().tolist())
    config = crops_config(
        loaded.preprocess, run.read_config() if run is not None else None, crop_scale_min=crop_scale_min, flip=flip,
        batch_size=batch_size or _usual_batch(len(source)), precision=requested, workers=workers, cache=cache,
        seed=seed,
    )  # fmt: skip
    backbone, place = loaded.placed(device)
    kind = choose_precision(requested, place)
    tuning = Tuning(epochs, rates[0], head_lr or rates[0], optimizer, weight_decay, warmup_epochs, label_smoothing,
                    kind, seed)  # fmt: skip
    store = load_crops(source, config, loaded.preprocess, reporter)
    task = Task(loaded, run, splits, store, config, rates, place, kind, reporter, began)
    tuner = _Tuner(task, tuning, head_lr)
    network, judged = tuner.tuned(backbone, "fine-tuning")
    variants = {"trained": judged}
    # The initialisation of a caller's own network is unknown.
    if baselines and loaded.spec is not None:
        variants["from_scratch"] = tuner.tuned(fresh_network(loaded.spec, seed), "from scratch")[1]
    if out is not None:
        save_classifier(out, loaded, network, splits.class_names, overwrite=overwrite)
    share = "" if labels == 1 else f", {labels:.3g} of each class's"

    def words(rate: str) -> str:
        return (
            f"fine-tuned end to end ({kind}), {crops_words(config)}; {optimizer}, weight decay {weight_decay:g}, "
            f"batch {task.batch_size}, {epochs} epochs, {warmup_epochs:g} of warm-up, cosine from lr x batch / 256; "
            f"{rate}{'' if head_lr is None else f', head {head_lr:g}'}; label smoothing {label_smoothing:g}; "
            f"last epoch; {len(store):,} images{share} of {splits.train_name}"
        )

    return conclude(
        task, "finetune", variants, words,
        settings={**asdict(tuning), "head_lr": head_lr or judged.rate, "labels": labels},
        beside="from scratch: random weights, trained in the same way" if "from_scratch" in variants else "",
    )  # fmt: skip


class _Tuner:
    """The training of a network, the same whatever weights it begins with."""

    def __init__(self, task: Task, tuning: Tuning, head_lr: float | None) -> None:
        self.task, self.tuning, self.head_lr = task, tuning, head_lr
        self.preprocess, self.device, self.reporter = task.encoder.preprocess, task.device, task.reporter
        self.labels = task.store.labels
        self.held = hold_out_to_choose(task)

    def tuned(self, backbone: nn.Module, what: str) -> tuple[Classifier, Judged]:
        """A copy of the network, trained at the best of the rates, and what came of the test images."""
        accuracies: dict[str, float] = {}
        chosen = self.task.rates[0]
        if len(self.task.rates) > 1:
            found = {rate: self._accuracy(backbone, rate, what) for rate in self.task.rates}
            sound = {rate: accuracy for rate, accuracy in found.items() if accuracy is not None}
            if not sound:
                rates = ", ".join(f"{rate:g}" for rate in self.task.rates)
                raise NonFiniteLossError(f"{what}: the loss is not finite at any lr of {rates}: give smaller ones.")
            chosen = max(sound, key=lambda rate: sound[rate])
            accuracies = {f"{rate:g}": round(accuracy, 4) for rate, accuracy in sound.items()}
        network = self._trained(backbone, chosen, None, what)
        test = features_of(
            self._frozen(network), self.preprocess, self.task.test, self.device, precision=self.tuning.precision,
            progress=lambda done, total: self.reporter.progress("testing", done, total),
        )  # fmt: skip
        predicted = test.vectors.argmax(dim=1)
        return network, Judged(predicted, test.labels, chosen, accuracies, test.skipped)

    def _trained(self, backbone: nn.Module, rate: float, positions: np.ndarray | None, what: str) -> Classifier:
        dim = self._dimension(backbone)
        network = Classifier(
            copy.deepcopy(backbone).requires_grad_(True), dim, len(self.task.store.source.class_names), self.tuning.seed
        ).to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        tuning = replace(self.tuning, lr=rate, head_lr=self.head_lr or rate)
        views = LabelledViews(self.task.store, self.task.config, self.device, positions)
        tune(network, views, tuning, self.device, what, self.reporter)
        return network

    def _accuracy(self, backbone: nn.Module, rate: float, what: str) -> float | None:
        """Accuracy on the images held out after training on the others; None where that diverges."""
        try:
            others = (~self.held).nonzero().flatten().numpy()
            network = self._trained(backbone, rate, others, f"{what}, trying lr {rate:g}")
        except NonFiniteLossError as error:
            self.reporter.warn(str(error))
            return None
        positions = self.held.nonzero().flatten().tolist()
        kept, (logits,) = extract(
            self._frozen(network), self.task.store, self.preprocess, positions, self.device,
            precision=self.tuning.precision,
        )  # fmt: skip
        return score(logits.argmax(dim=1), self.labels[kept]).accuracy

    def _dimension(self, backbone: nn.Module) -> int:
        """Of the features, also of a caller's own network."""
        shape = (2, len(self.preprocess.mean), self.preprocess.size, self.preprocess.size)
        with torch.no_grad():
            return int(backbone.to(self.device).eval()(torch.zeros(shape, device=self.device)).shape[1])

    def _frozen(self, network: Classifier) -> FrozenBackbone:
        """The network for images as they are; its features are the logits."""
        return FrozenBackbone(network, self.device, self.tuning.precision, self.preprocess.size)


def _usual_batch(num_images: int) -> int:
    """A power of two, so that an epoch has 8 steps and more where the images allow."""
    return min(LARGEST_BATCH, max(SMALLEST_BATCH, 2 ** int(math.log2(max(1, num_images / 8)))))


def _check(epochs: int, head_lr: float | None, warmup_epochs: float, label_smoothing: float, labels: float) -> None:
    """Raise `ConfigError` for a value out of range; written so that NaN fails too."""
    if head_lr is not None:
        check_rate("head_lr", head_lr)
    if not 0 <= warmup_epochs < epochs:
        raise ConfigError(f"warmup_epochs = {warmup_epochs}: must be at least 0 and below epochs = {epochs}.")
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing = {label_smoothing}: must be at least 0 and below 1.")
    if not 0 < labels <= 1:
        raise ConfigError(f"labels = {labels}: a share of each class, above 0 and at most 1.")
