"""The papers' linear evaluation: one layer on a frozen backbone, trained on augmented images."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.features import extract, features_of
from stopgrad.errors import NonFiniteLossError
from stopgrad.evaluate.shared.baselines import before_training
from stopgrad.evaluate.shared.crops import FrozenBackbone, crops_config, crops_words, load_crops
from stopgrad.evaluate.shared.heads import MOMENTUM, LinearHeads
from stopgrad.evaluate.shared.outcome import Outcome
from stopgrad.evaluate.shared.prepare import opened, requested_precision
from stopgrad.evaluate.shared.splits import Images, open_labelled_splits
from stopgrad.evaluate.shared.trained import (
    TEST_SHARE,
    Judged,
    Pace,
    Task,
    check_training,
    conclude,
    hold_out_to_choose,
)
from stopgrad.hardware import choose_precision
from stopgrad.loader.labelled import LabelledViews
from stopgrad.objective.device import sent
from stopgrad.reporter import QuietReporter, Reporter
from stopgrad.schedules import cosine

LEARNING_RATES = {
    "sgd": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    "lars": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
}
"""For a batch of 256; chosen among on images held out."""
EPOCHS, BATCH_SIZE = 90, 256


def evaluate_linear_augmented(
    encoder: str | Path | Encoder, train: Images | None = None, test: Images | None = None, *, epochs: int = EPOCHS,
    lr: Sequence[float] = (), optimizer: str = "sgd", batch_size: int = 0, weight_decay: float = 0.0,
    crop_scale_min: float | None = None, flip: bool | None = None, baselines: bool = True, precision: str | None = None,
    workers: int = 0, cache: str = "auto", device: str = "auto", seed: int = 0, reporter: Reporter | None = None,
) -> Outcome:  # fmt: skip
    """Train a linear layer on the frozen backbone's features of randomly cropped images; test it once, at the end.

    Heads of all learning rates are trained at once on the same features, in two sets: one without a tenth of each
    class, on which the rate is chosen after the last epoch, and one on all training images, whose head of that rate is
    the one tested.

    Args:
        encoder: an encoder, or what `load_encoder` takes; in a run folder the outcome is saved.
        train: labelled images (a path or an `ImageSource`); None: those that the run was trained on.
        test: labelled images; None: the test images of `train`, or a fifth of each class where it has none.
        epochs: passes over the training images.
        lr: learning rates for a batch of 256, scaled by batch size / 256, to choose among; one alone is taken without
            choosing; none: `LEARNING_RATES`.
        optimizer: "sgd" with momentum 0.9, or "lars", as SimSiam's on ImageNet.
        batch_size: images a step; 0: 256.
        weight_decay: of the heads.
        crop_scale_min: smallest crop as a share of the image's area; None: 0.08.
        flip: whether to mirror half of the images; None: as the run did, else yes.
        baselines: whether to do the same with the untrained network.
        precision: of the backbone, as the setting `precision`; None: as the run did, else `auto`. The heads are in
            float32.
        workers: threads that decode and crop; 0: one per core.
        cache: where decoded images are kept, as the setting `cache`.
        device: as the setting `device`.
        seed: of order, crops, initial weights and the choice of images held out.
        reporter: told of progress.

    Raises:
        ConfigError: a value out of range, or rates to choose among and one image a class.
        DataError: labels missing, one class only, or classes that differ between training and test images.
        NonFiniteLossError: no learning rate leads to finite weights.
        CheckpointError: no encoder there.

    Source of the protocol: SimSiam (arXiv 2011.10566, appendix A), whose crops, cosine schedule, 90 epochs and zero
    weight decay these are; it takes LARS at lr 0.1 and a batch of 4096.
    """
    began = time.perf_counter()
    reporter = reporter or QuietReporter()
    rates = check_training(epochs, lr, optimizer, weight_decay, LEARNING_RATES)
    loaded, run = opened(encoder)
    requested = requested_precision(precision, run)
    config = crops_config(
        loaded.preprocess, run.read_config() if run is not None else None, crop_scale_min=crop_scale_min, flip=flip,
        batch_size=batch_size or BATCH_SIZE, precision=requested, workers=workers, cache=cache,
        seed=seed,
    ).replace(epochs=epochs)  # fmt: skip
    splits = open_labelled_splits(train, test, run, holdout=TEST_SHARE, seed=seed)
    backbone, place = loaded.placed(device)
    kind = choose_precision(requested, place)
    store = load_crops(splits.train, config, loaded.preprocess, reporter)
    task = Task(loaded, run, splits, store, config, rates, place, kind, reporter, began)
    training = _Training(task, optimizer, weight_decay)
    judged, images_per_second = training.judge(backbone, "trained")
    variants = {"trained": judged}
    before = before_training(loaded, run, splits.train, seed, place) if baselines else None
    if before is not None:
        name, network = before
        variants[name] = training.judge(network, name)[0]

    def words(rate: str) -> str:
        return (
            f"linear layer on frozen features ({kind}), {crops_words(config)}; {optimizer}, momentum {MOMENTUM}, "
            f"weight decay {weight_decay:g}, batch {task.batch_size}, {epochs} epochs, cosine from lr x batch / 256; "
            f"{rate}; last epoch; {len(store):,} of {splits.train_name}"
        )

    return conclude(
        task, "linear-augmented", variants, words,
        settings={"epochs": epochs, "optimizer": optimizer, "momentum": MOMENTUM, "weight_decay": weight_decay},
        details={"images_per_second": round(images_per_second)},
    )  # fmt: skip


class _Training:
    """The training of heads, the same for every backbone."""

    def __init__(self, task: Task, optimizer: str, weight_decay: float) -> None:
        self.task, self.optimizer, self.weight_decay = task, optimizer, weight_decay
        self.rates, self.preprocess, self.device = task.rates, task.encoder.preprocess, task.device
        self.reporter = task.reporter
        self.views = LabelledViews(task.store, task.config, task.device)
        self.held = hold_out_to_choose(task)
        self.num_sets = 2 if len(self.rates) > 1 else 1

    def judge(self, backbone: nn.Module, name: str) -> tuple[Judged, float]:
        """Train heads on a backbone, choose one of them and test it; and how many images a second they learned from."""
        frozen = FrozenBackbone(backbone, self.device, self.task.precision, self.preprocess.size)
        heads, images_per_second = self._train(frozen, name)
        chosen, held_out = self._choose(heads, frozen)
        test = features_of(
            frozen, self.preprocess, self.task.test, self.device, precision=self.task.precision,
            progress=lambda done, total: self.reporter.progress("embedding test images", done, total),
        )  # fmt: skip
        predicted = heads.predict(test.vectors, chosen)
        return Judged(predicted, test.labels, self.rates[chosen], held_out, test.skipped), images_per_second

    def _train(self, frozen: FrozenBackbone, name: str) -> tuple[LinearHeads, float]:
        views, per_epoch = self.views, self.views.steps_per_epoch
        total = self.task.config.training.epochs * per_epoch
        peaks = [rate * views.batch_size / 256 for rate in self.rates]
        heads: LinearHeads | None = None
        pace = Pace(total)
        # The first set learns from all images, the second from those that are not held out.
        shown = torch.ones((len(self.task.store), len(peaks) * self.num_sets), dtype=torch.bool)
        shown[:, len(peaks) :] = ~self.held[:, None]
        for step, (batch, features) in enumerate(frozen.of_views(views, total)):
            if heads is None:
                heads = LinearHeads(
                    features.shape[1], len(self.task.store.source.class_names), peaks * self.num_sets,
                    optimizer=self.optimizer, weight_decay=self.weight_decay, seed=self.task.seed,
                    device=self.device,
                )  # fmt: skip
            labels = sent(views.labels_of(batch), self.device)
            losses = heads.step(
                features, labels, sent(shown[torch.from_numpy(batch.positions)], self.device), cosine(step, total)
            )
            pace.add(len(batch))
            if pace.is_due(step + 1):
                details = f"epoch {step // per_epoch + 1}, loss {float(losses.nan_to_num(math.inf).min()):.3f}"
                self.reporter.progress(
                    f"linear heads, {name} network", step + 1, total, f"{details}, {pace.words(step + 1)}"
                )
            if (step + 1) % per_epoch == 0 and not any(heads.finite()):
                raise NonFiniteLossError(
                    f"no head's weights are finite after epoch {step // per_epoch + 1}, with "
                    f"lr = {', '.join(f'{rate:g}' for rate in self.rates)}: give smaller ones, or precision = 'fp32'."
                )
        assert heads is not None
        return heads, pace.images_per_second()

    def _choose(self, heads: LinearHeads, frozen: FrozenBackbone) -> tuple[int, dict[str, float]]:
        """The head of the rate that did best on the images held out, and how each did; equals by their loss."""
        if self.num_sets == 1:
            return 0, {}
        positions = self.held.nonzero().flatten().tolist()
        kept, (features,) = extract(
            frozen, self.task.store, self.preprocess, positions, self.device, precision=self.task.precision
        )
        num = len(self.rates)
        right, losses = (figures[num:] for figures in heads.judge(features, self.views.labels[kept]))
        # A rate at which either head diverged is none to choose.
        sound = [a and b for a, b in zip(heads.finite()[:num], heads.finite()[num:], strict=True)]
        if not any(sound):
            raise NonFiniteLossError(f"no learning rate of {self.rates} left both of its heads finite: give smaller.")
        chosen = max((i for i in range(num) if sound[i]), key=lambda i: (float(right[i]), -float(losses[i])))
        if chosen in (0, num - 1):
            self.reporter.warn(
                f"the {'smallest' if self.rates[chosen] == min(self.rates) else 'largest'} learning rate, "
                f"{self.rates[chosen]:g}, did best on the images held out: others beyond it may do better."
            )
        return chosen, {f"{rate:g}": round(float(right[i]), 4) for i, rate in enumerate(self.rates) if sound[i]}
