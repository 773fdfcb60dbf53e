"""The figures at the end of a run: k-NN on the test images, beside raw pixels and the untrained network."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stopgrad.config import Config
from stopgrad.data.preprocess import Preprocess, preprocess_of
from stopgrad.data.store import ImageStore
from stopgrad.encoder.features import extract
from stopgrad.hardware import choose_precision
from stopgrad.train.monitor import KnnProtocol, LabelledFeatures

# Beyond this many images the bank is a random part, and the protocol says so.
MAX_BANK = 200_000
PIXEL_SIZE = 32
FEW_LABELS, FEW_LABEL_DRAWS = 10, 10
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Table:
    """k-NN accuracies in 0..1 by what the features are, and how they were measured."""

    scores: dict[str, float]
    """trained, and where baselines are measured untrained, pixels, pixels_centred."""
    few_label_scores: dict[str, tuple[float, float]]
    """The same with few labels: mean and deviation over draws; empty where a class has too few images."""
    protocol: str
    num_queries: int


def measure_table(
    config: Config, bank: ImageStore, queries: ImageStore | None, trained: nn.Module, untrained: nn.Module | None,
    device: torch.device,
) -> Table | None:  # fmt: skip
    """Measure the table; None where the labels do not allow it.

    Args:
        config: k, temperature, seed, image size and precision.
        bank: the training images.
        queries: the test images, or those held out; None takes every fifth training image out of the bank.
        trained, untrained: backbones in eval mode; `untrained` None: no baselines, and nothing with few labels.
        device: where they are.
    """
    class_names = bank.source.class_names
    if len(class_names) < 2:
        return None
    generator = np.random.Generator(np.random.PCG64([config.training.seed, 2**33]))
    order = generator.permutation(len(bank))[:MAX_BANK]
    if queries is None:
        bank_positions, query_store, query_positions = (
            order[len(order) // 5 :],
            bank,
            order[: len(order) // 5],
        )
    else:
        bank_positions, query_store, query_positions = order, queries, np.arange(len(queries))
    m, precision = config.monitoring, choose_precision(config.training.precision, device)
    pixels = _pixels_of(config)
    scores, few = {}, {}
    knn, num_bank, num_queries = None, 0, 0
    rows: list[tuple[str, nn.Module, Preprocess]] = [("trained", trained, preprocess_of(config))]
    if untrained is not None:
        rows += [("untrained", untrained, preprocess_of(config)), ("pixels", nn.Flatten(), pixels)]
    for name, network, preprocess in rows:
        sides = [
            _labelled(network, store, preprocess, sorted(positions.tolist()), device, precision)
            for store, positions in ((bank, bank_positions), (query_store, query_positions))
        ]
        if any(len(side.labels) == 0 for side in sides):
            return None
        num_bank, num_queries = len(sides[0].labels), len(sides[1].labels)
        variants = {name: sides}
        if name == "pixels":
            mean = sides[0].features.mean(dim=0)
            variants["pixels_centred"] = [LabelledFeatures(s.features - mean, s.labels) for s in sides]
        knn = KnnProtocol(min(m.knn_k, num_bank), m.knn_temperature, len(class_names))
        for variant, (bank_side, query_side) in variants.items():
            scores[variant] = knn.accuracy(bank_side, query_side)
            if untrained is not None and _allows_few_labels(bank_side.labels, len(class_names), knn.k):
                few[variant] = knn.few_label_accuracy(
                    bank_side,
                    query_side,
                    per_class=FEW_LABELS,
                    num_draws=FEW_LABEL_DRAWS,
                    seed=config.training.seed,
                )
    assert knn is not None
    which = (
        "training images taken out of the bank (trained on, without labels: there is no test split)" if queries is None
        else "training images held out" if config.data.holdout else "test images"
    )  # fmt: skip
    protocol = (
        f"k-NN, k = {knn.k}, T = {knn.temperature:g}, cosine; bank of {num_bank:,} training images, "
        f"queries {num_queries:,} {which}; features in {precision}"
    )
    if untrained is not None:
        protocol += f"; pixels at {pixels.size} x {pixels.size}"
    return Table(scores, few, protocol, num_queries)


def _pixels_of(config: Config) -> Preprocess:
    size = min(config.data.image_size, PIXEL_SIZE)
    return Preprocess(size, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _labelled(
    network: Network, store: ImageStore, preprocess: Preprocess, positions: list[int], device: torch.device,
    precision: str,
) -> LabelledFeatures:  # fmt: skip
    labels = store.labels
    known = [p for p in positions if labels[p] >= 0]
    if not known:
        return LabelledFeatures(torch.empty(0, 1), torch.empty(0, dtype=torch.int64))
    kept, (features,) = extract(network, store, preprocess, known, device, precision=precision)
    return LabelledFeatures(features, labels[kept])


def _allows_few_labels(labels: Tensor, num_classes: int, k: int) -> bool:
    """Enough labels of every class to draw from, and as many in all as neighbours that vote."""
    counts = torch.bincount(labels, minlength=num_classes)
    return int(counts.min()) > FEW_LABELS and k <= FEW_LABELS * num_classes
