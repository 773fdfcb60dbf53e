"""The papers' linear evaluation: one layer on a frozen backbone, trained on augmented images."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad.config import Config
from stopgrad.data.labelled import LabelledViews
from stopgrad.data.preprocess import Preprocess
from stopgrad.data.sources import ImageSource
from stopgrad.data.store import ImageStore
from stopgrad.encoder.embed import Encoder
from stopgrad.encoder.features import extract, features_of
from stopgrad.errors import ConfigError, NonFiniteLossError, did_you_mean
from stopgrad.evaluate.baselines import untrained_like
from stopgrad.evaluate.crops import crops_config, crops_words, load_crops
from stopgrad.evaluate.frozen import FrozenBackbone
from stopgrad.evaluate.heads import MOMENTUM, LinearHeads
from stopgrad.evaluate.holdout import check_can_choose, hold_out
from stopgrad.evaluate.outcome import Outcome, Score, by_class, score
from stopgrad.evaluate.pace import Pace
from stopgrad.evaluate.sides import Images, open_sides
from stopgrad.evaluate.subject import opened, pixel_words
from stopgrad.hardware import choose_precision
from stopgrad.reporter import QuietReporter, Reporter
from stopgrad.schedules import cosine

LEARNING_RATES = {
    "sgd": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    "lars": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
}
"""For a batch of 256; chosen among on images held out."""
EPOCHS, BATCH_SIZE = 90, 256
HELD_OUT = 0.1
"""Share of the training images that the rate is chosen on."""
TEST_SHARE = 0.2
"""Share of one set of images that is taken out to test on."""


@dataclass(frozen=True)
class _Judged:
    """What one backbone's heads came to."""

    predicted: Tensor
    labels: Tensor
    rate: float
    held_out: dict[str, float]
    """Learning rate -> accuracy on the images held out; empty where there was nothing to choose."""
    images_per_second: float
    skipped: dict[str, str]


def evaluate_linear_augmented(
    encoder: str | Path | Encoder, train: Images | None = None, test: Images | None = None, *, epochs: int = EPOCHS,
    lr: Sequence[float] = (), optimizer: str = "sgd", batch_size: int = 0, weight_decay: float = 0.0,
    crop_scale_min: float | None = None, flip: bool | None = None, baselines: bool = True, precision: str = "auto",
    workers: int = 0, cache: str = "auto", device: str = "auto", seed: int = 0, reporter: Reporter | None = None,
) -> Outcome:  # fmt: skip
    """Train a linear layer on the frozen backbone's features of randomly cropped images; test it once, at the end.

    Heads of all learning rates are trained at once on the same features, in two sets: one without a tenth of each
    class, on which the rate is chosen after the last epoch, and one on all training images, whose head of that rate is
    the one tested.

    Args:
        encoder: an encoder, or what `load_encoder` takes; the outcome is kept in a run folder.
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
        precision: of the backbone, as the setting `precision`; the heads are in float32.
        workers: threads that decode and crop; 0: one per core.
        cache: where decoded images are kept, as the setting `cache`.
        device: as the setting `device`.
        seed: of order, crops, initial weights and the choice of images held out.
        reporter: told of progress.

    Raises:
        ConfigError: a value out of range, or rates to choose among and one image a class.
        DataError: labels missing, one class only, or classes that differ between the sides.
        NonFiniteLossError: no learning rate leads to finite weights.
        CheckpointError: no encoder there.

    Source of the protocol: SimSiam (arXiv 2011.10566, appendix A), whose crops, cosine schedule, 90 epochs and zero
    weight decay these are; it takes LARS at lr 0.1 and a batch of 4096.
    """
    began = time.perf_counter()
    reporter = reporter or QuietReporter()
    rates = _checked(epochs, lr, optimizer, weight_decay)
    subject, run = opened(encoder)
    config = crops_config(
        subject.preprocess, run.read_config() if run is not None else None, crop_scale_min=crop_scale_min, flip=flip,
        batch_size=batch_size or BATCH_SIZE, precision=precision, workers=workers, cache=cache,
        seed=seed,
    ).replace(epochs=epochs)  # fmt: skip
    sides = open_sides(train, test, run, holdout=TEST_SHARE, seed=seed)
    assert sides.test is not None
    backbone, place = subject.placed(device)
    kind = choose_precision(precision, place)
    store = load_crops(sides.train, config, subject.preprocess, reporter)
    training = _Training(config, store, sides.test, subject.preprocess, rates, optimizer, weight_decay, place, kind)
    judged = {"trained": training.judge(backbone, "trained", reporter)}
    untrained = untrained_like(subject, sides.train, seed, place) if baselines else None
    if untrained is not None:
        judged["untrained"] = training.judge(untrained, "untrained", reporter)
    trained = judged["trained"]
    per_class, confusions = by_class(trained.predicted, trained.labels, sides.class_names)
    scores: dict[str, Score] = {name: score(j.predicted, j.labels) for name, j in judged.items()}
    actual = training.views.batch_size
    tried = (
        f", of {', '.join(f'{rate:g}' for rate in rates)} the best on {HELD_OUT:.0%} of each class held out, then all "
        "images" if len(rates) > 1 else ""
    )  # fmt: skip
    settings: dict[str, Any] = {
        "epochs": epochs, "lr": trained.rate, "lrs": list(rates), "optimizer": optimizer, "momentum": MOMENTUM,
        "weight_decay": weight_decay, "batch_size": actual, "schedule": "cosine", "precision": kind,
        "augmentation": crops_words(config), "crop_scale_min": config.augmentation.crop_scale_min,
        "flip_probability": config.augmentation.flip_probability, "held_out": HELD_OUT if len(rates) > 1 else 0.0,
        "preprocess": asdict(subject.preprocess), "seed": seed,
    }  # fmt: skip

    def protocol(rate: str) -> str:
        return (
            f"linear layer on frozen features ({kind}), {crops_words(config)}; {optimizer}, momentum {MOMENTUM}, "
            f"weight decay {weight_decay:g}, batch {actual}, {epochs} epochs, cosine from lr x batch / 256; {rate}; "
            f"last epoch; {len(store):,} of {sides.train_name}; tested on {len(trained.labels):,} of "
            f"{sides.test_name}; {pixel_words(subject, baselines=False)}; seed {seed}"
        )

    outcome = Outcome(
        evaluation="linear-augmented", encoder=subject.name, settings=settings, scores=scores,
        protocol=protocol(f"lr {trained.rate:g}{tried}"),
        compared_by=protocol(f"lr{tried}" if tried else f"lr {trained.rate:g}"),
        num_train=len(store), num_test=len(trained.labels), per_class=per_class, confusions=confusions,
        details={
            "lr": {name: j.rate for name, j in judged.items()},
            "held_out_accuracy_by_lr": {name: j.held_out for name, j in judged.items()},
            "images_per_second": round(trained.images_per_second),
        },
        seconds=round(time.perf_counter() - began, 1),
        skipped=[{"name": name, "reason": why} for name, why in {**store.skipped, **trained.skipped}.items()],
    )  # fmt: skip
    if run is not None:
        outcome.keep_in(run, reporter)
    return outcome


class _Training:
    """The training of heads, the same for every backbone."""

    def __init__(
        self, config: Config, store: ImageStore, test: ImageSource, preprocess: Preprocess, rates: Sequence[float],
        optimizer: str, weight_decay: float, device: torch.device, precision: str,
    ) -> None:  # fmt: skip
        self.config, self.store, self.test, self.preprocess, self.rates = config, store, test, preprocess, rates
        self.optimizer, self.weight_decay, self.device, self.precision = optimizer, weight_decay, device, precision
        self.views = LabelledViews(store, config, device)
        chooses = len(rates) > 1
        self.held = hold_out(self.views.labels, HELD_OUT, config.training.seed)
        check_can_choose(rates, self.held)
        self.num_sets = 2 if chooses else 1

    def judge(self, backbone: nn.Module, name: str, reporter: Reporter) -> _Judged:
        """Train heads on a backbone, choose one of them, and test it."""
        frozen = FrozenBackbone(backbone, self.device, self.precision, self.preprocess.size)
        heads, images_per_second = self._train(frozen, name, reporter)
        chosen, held_out = self._choose(heads, frozen, reporter)
        test = features_of(
            frozen, self.preprocess, self.test, self.device,
            progress=lambda done, total: reporter.progress("embedding test images", done, total),
        )  # fmt: skip
        predicted = heads.predict(test.vectors, chosen)
        return _Judged(predicted, test.labels, self.rates[chosen], held_out, images_per_second, dict(test.skipped))

    def _train(self, frozen: FrozenBackbone, name: str, reporter: Reporter) -> tuple[LinearHeads, float]:
        views, per_epoch = self.views, self.views.steps_per_epoch
        total = self.config.training.epochs * per_epoch
        peaks = [rate * views.batch_size / 256 for rate in self.rates]
        heads: LinearHeads | None = None
        pace = Pace(total)
        # The first set learns from all images, the second from those that are not held out.
        shown = torch.ones((len(self.store), len(peaks) * self.num_sets), dtype=torch.bool)
        shown[:, len(peaks) :] = ~self.held[:, None]
        for step, (batch, features) in enumerate(frozen.of_views(views, total)):
            if heads is None:
                heads = LinearHeads(
                    features.shape[1], len(self.store.source.class_names), peaks * self.num_sets,
                    optimizer=self.optimizer, weight_decay=self.weight_decay, seed=self.config.training.seed,
                    device=self.device,
                )  # fmt: skip
            labels = views.labels_of(batch).to(self.device)
            losses = heads.step(
                features, labels, shown[torch.from_numpy(batch.positions)].to(self.device), cosine(step, total)
            )
            pace.add(len(batch))
            if pace.is_due(step + 1):
                details = f"epoch {step // per_epoch + 1}, loss {float(losses.nan_to_num(math.inf).min()):.3f}"
                reporter.progress(
                    f"linear heads, {name} network", step + 1, total, f"{details}, {pace.words(step + 1)}"
                )
            if (step + 1) % per_epoch == 0 and not any(heads.finite()):
                raise NonFiniteLossError(
                    f"no head's weights are finite after epoch {step // per_epoch + 1}, with "
                    f"lr = {', '.join(f'{rate:g}' for rate in self.rates)}: give smaller ones, or precision = 'fp32'."
                )
        assert heads is not None
        return heads, pace.images_per_second()

    def _choose(self, heads: LinearHeads, frozen: FrozenBackbone, reporter: Reporter) -> tuple[int, dict[str, float]]:
        """The head of the rate that did best on the images held out, and how each did; equals by their loss."""
        if self.num_sets == 1:
            return 0, {}
        positions = self.held.nonzero().flatten().tolist()
        kept, (features,) = extract(frozen, self.store, self.preprocess, positions, self.device)
        num = len(self.rates)
        right, losses = (figures[num:] for figures in heads.judge(features, self.views.labels[kept]))
        # A rate at which either head diverged is none to choose.
        sound = [a and b for a, b in zip(heads.finite()[:num], heads.finite()[num:], strict=True)]
        if not any(sound):
            raise NonFiniteLossError(f"no learning rate of {self.rates} left both of its heads finite: give smaller.")
        chosen = max((i for i in range(num) if sound[i]), key=lambda i: (float(right[i]), -float(losses[i])))
        if chosen in (0, num - 1):
            reporter.warn(
                f"the {'smallest' if self.rates[chosen] == min(self.rates) else 'largest'} learning rate, "
                f"{self.rates[chosen]:g}, did best on the images held out: others beyond it may do better."
            )
        return chosen, {f"{rate:g}": round(float(right[i]), 4) for i, rate in enumerate(self.rates) if sound[i]}


def _checked(epochs: int, lr: Sequence[float], optimizer: str, weight_decay: float) -> tuple[float, ...]:
    if optimizer not in LEARNING_RATES:
        raise ConfigError(f"optimizer = {optimizer!r} is unknown: {did_you_mean(optimizer, LEARNING_RATES)}")
    if epochs < 1:
        raise ConfigError(f"epochs = {epochs}: must be at least 1.")
    if not weight_decay >= 0:
        raise ConfigError(f"weight_decay = {weight_decay}: must be at least 0.")
    for rate in lr:
        if not (rate > 0 and math.isfinite(rate)):
            raise ConfigError(f"lr = {rate}: must be above 0.")
    return tuple(dict.fromkeys(lr)) or LEARNING_RATES[optimizer]
