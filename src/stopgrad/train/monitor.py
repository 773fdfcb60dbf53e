"""Monitors beside the loss: features of fixed images, in eval mode and without augmentation.

The backbone computes in the run's precision, the projector and what is made of features and projections in float32.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from stopgrad.cache.store import ImageStore
from stopgrad.config import Config
from stopgrad.encoder.features import extract
from stopgrad.errors import NonFiniteLossError
from stopgrad.hardware import autocast, choose_precision
from stopgrad.loader.loader import Loader
from stopgrad.loader.preprocess import preprocess_of
from stopgrad.methods.protocol import Method
from stopgrad.metrics.accuracy import knn_predict, knn_predict_each
from stopgrad.metrics.collapse import (
    alignment,
    effective_rank,
    feature_std,
    mean_squared_distance,
    uniformity,
)

# Enough for the measures to settle, little enough to be cheap: effective rank and uniformity are quadratic.
HEALTH_IMAGES = 2000
VIEW_PAIRS = 256
CHOSEN_BY = "knn_leave_one_out"
"""The measure by which the encoder to keep is chosen."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Features with the labels of their images; images without a label are left out."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class KnnProtocol:
    """How k-NN is done: what stands beside every figure of it."""

    k: int
    temperature: float
    num_classes: int

    def right(self, bank: LabelledFeatures, queries: LabelledFeatures) -> Bool[Tensor, "query"]:
        """Which queries are classified rightly."""
        predicted = knn_predict(
            bank.features, bank.labels, queries.features, k=min(self.k, len(bank.labels)), temperature=self.temperature,
            num_classes=self.num_classes,
        )  # fmt: skip
        return predicted == queries.labels

    def accuracy(self, bank: LabelledFeatures, queries: LabelledFeatures) -> float:
        """Share of queries classified rightly, in 0..1."""
        return float(self.right(bank, queries).double().mean())

    def leave_one_out(self, side: LabelledFeatures) -> float:
        """Share of images classified rightly by the others, in 0..1; at least 2 images."""
        k = min(self.k, len(side.labels) - 1)
        predicted = knn_predict_each(
            side.features, side.labels, side.features, ks=(k,), temperature=self.temperature,
            num_classes=self.num_classes, own=torch.arange(len(side.labels)),
        )[k]  # fmt: skip
        return float((predicted == side.labels).double().mean())

    def few_label_accuracy(
        self, bank: LabelledFeatures, queries: LabelledFeatures, *, per_class: int, num_draws: int, seed: int
    ) -> tuple[float, float]:
        """Mean and standard deviation over random draws of a bank with `per_class` labels of each class."""
        generator = np.random.Generator(np.random.PCG64(seed))
        scores = []
        for _ in range(num_draws):
            drawn = np.concatenate([
                generator.permutation(np.flatnonzero(bank.labels.numpy() == c))[:per_class]
                for c in range(self.num_classes)
            ])  # fmt: skip
            index = torch.from_numpy(drawn)
            scores.append(self.accuracy(LabelledFeatures(bank.features[index], bank.labels[index]), queries))
        return float(np.mean(scores)), float(np.std(scores, ddof=1))


class Monitor:
    """Measures a method on fixed images while it trains.

    Labels only ever come from the training images here: every fifth one queries the others, so that watching a run
    tunes nothing on the test split.

    Args:
        store: the training images.
        loader: of the same images, for the two views that alignment needs.
        config: the run's.
        device: where the method is.
    """

    def __init__(self, store: ImageStore, loader: Loader, config: Config, device: torch.device) -> None:
        self.store, self.device, self.preprocess = store, device, preprocess_of(config)
        generator = np.random.Generator(np.random.PCG64([config.training.seed, 2**32]))
        count = min(config.monitoring.monitor_images, len(store))
        self.positions = [int(p) for p in store.draw(count, generator)]
        self.precision = choose_precision(config.training.precision, device)
        m = config.monitoring
        num_classes = len(store.source.class_names)
        self.protocol = KnnProtocol(m.knn_k, m.knn_temperature, num_classes) if num_classes > 1 else None
        self.loader = loader
        self.chooses = config.training.keep == "best" and self.protocol is not None
        """Whether `measure` says how good an encoder is to keep."""

    @property
    def chosen_by(self) -> str:
        """What encoders are compared by, in words."""
        assert self.protocol is not None
        return (
            f"leave-one-out k-NN (k = {min(self.protocol.k, len(self.positions) - 1)}) of {len(self.positions):,} "
            "training images"
        )

    def measure(self, method: Method) -> dict[str, float]:
        """Health of backbone features and projections, and k-NN where there are labels.

        Returns:
            feature_std, effective_rank, uniformity, alignment of the backbone features; relative_alignment, as a share
            of the mean squared distance between different images; projection_std and projection_effective_rank;
            rank_ceiling, the largest effective rank that the images and dimensions allow; knn_top1 in 0..1, and
            knn_leave_one_out in 0..1, each image asking all others.

        Raises:
            NonFiniteLossError: features or projections hold NaN or infinite numbers.
        """
        was_training = method.training
        method.eval()
        try:
            return self._measure(method)
        finally:
            method.train(was_training)

    def _measure(self, method: Method) -> dict[str, float]:
        kept, (features, projections) = extract(
            method.project, self.store, self.preprocess, self.positions, self.device, precision=self.precision
        )
        if not (features.isfinite().all() and projections.isfinite().all()):
            raise NonFiniteLossError("the features of plain images are no longer finite")
        health, projected = features[:HEALTH_IMAGES], projections[:HEALTH_IMAGES]
        first, second = self._two_views(method)
        measured = {
            "feature_std": feature_std(health),
            "effective_rank": effective_rank(health),
            "rank_ceiling": float(min(len(health) - 1, health.shape[1])),
            "projection_std": feature_std(projected),
            "projection_effective_rank": effective_rank(projected),
            "alignment": alignment(first, second),
            "relative_alignment": alignment(first, second) / max(mean_squared_distance(first), 1e-12),
            "uniformity": uniformity(health),
        }
        labels = self.store.labels_of(kept)
        known = labels >= 0
        query = torch.arange(len(kept)) % 5 == 0
        bank, queries = known & ~query, known & query
        if self.protocol is not None and bank.any() and queries.any():
            measured["knn_top1"] = self.protocol.accuracy(
                LabelledFeatures(features[bank], labels[bank]),
                LabelledFeatures(features[queries], labels[queries]),
            )
            measured |= {
                "knn_k": min(self.protocol.k, int(bank.sum())),
                "knn_temperature": self.protocol.temperature,
            }
        if self.protocol is not None and known.sum() > 1:
            side = LabelledFeatures(features[known], labels[known])
            measured[CHOSEN_BY] = self.protocol.leave_one_out(side)
        return measured

    @torch.no_grad()
    def _two_views(self, method: Method) -> tuple[Tensor, Tensor]:
        """Features of two views of the same images: always the same images and views."""
        with ThreadPoolExecutor(1) as pool:
            batch = self.loader.load(np.array(self.positions[:VIEW_PAIRS]), 0, pool)
        views = self.loader.views(batch, self.device)[:2]
        with autocast(self.device, self.precision):
            first, second = (method.project(view)[0] for view in views)
        return first.float().cpu(), second.float().cpu()
