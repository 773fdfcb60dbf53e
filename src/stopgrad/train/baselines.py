"""The figures at the end of a run: k-NN on the test images, beside raw pixels and the network before training."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from stopgrad.cache.store import ImageStore
from stopgrad.config import Config
from stopgrad.data.shards.order import layout_of
from stopgrad.encoder.features import extract
from stopgrad.hardware import choose_precision
from stopgrad.loader.preprocess import Preprocess, plain_pixels, preprocess_of
from stopgrad.metrics.paired import Paired, compare_paired
from stopgrad.reporter import Reporter
from stopgrad.train.monitor import KnnProtocol, LabelledFeatures

# Beyond this many images the bank is a random part, and the protocol says so.
MAX_BANK = 200_000
MAX_STREAMED = 20_000
"""The same of a set that is read shard by shard, out of a few shards."""
PIXEL_SIZE = 32
FEW_LABELS, FEW_LABEL_DRAWS = 10, 10
# So many images are embedded to see how long all would take; a sample has as many of either kind at least.
TRIAL_IMAGES, LEAST_IMAGES = 32, 250
LEAST_SECONDS = 20.0
"""The figures may take so long, however short the training was."""
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Table:
    """k-NN accuracies in 0..1 by what the features are, and how they were measured."""

    scores: dict[str, float]
    """trained; where it was measured `start` or `untrained`; and with baselines pixels, pixels_centred."""
    few_label_scores: dict[str, tuple[float, float]]
    """The same with few labels: mean and standard deviation over draws; empty where a class has too few images."""
    protocol: str
    num_queries: int
    paired: Paired | None = None
    """Trained beside what was before training, on the same images."""
    is_sample: bool = False
    """Whether some images were left out for time."""


@dataclass(frozen=True)
class Rows:
    """The networks to measure, in eval mode."""

    trained: nn.Module
    before: nn.Module | None
    """As training found it; None: nothing to compare with."""
    before_key: str
    """`start` or `untrained`."""
    pixels: bool
    """Whether raw pixels are measured, and all of it with few labels too."""


@dataclass
class _Images:
    """Which images are the bank and which ask."""

    bank: ImageStore
    queries: ImageStore
    bank_positions: np.ndarray
    query_positions: np.ndarray
    which: str
    num_bank: int = field(init=False)
    num_queries: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_bank, self.num_queries = len(self.bank_positions), len(self.query_positions)

    @property
    def num(self) -> int:
        return len(self.bank_positions) + len(self.query_positions)

    @property
    def is_sample(self) -> bool:
        return len(self.query_positions) < self.num_queries or len(self.bank_positions) < self.num_bank

    def keep(self, num: int) -> None:
        """Keep about so many images, drawn at random: of each kind its share, but `LEAST_IMAGES` if there are any."""
        share = num / self.num
        if share < 1:
            self.bank_positions, self.query_positions = (
                positions[: max(min(len(positions), LEAST_IMAGES), math.floor(share * len(positions)))]
                for positions in (self.bank_positions, self.query_positions)
            )


def measure_table(
    config: Config, bank: ImageStore, queries: ImageStore | None, rows: Rows, device: torch.device, *,
    seconds: float = 0.0, reporter: Reporter,
) -> Table | None:  # fmt: skip
    """Measure the table; None where the labels do not allow it.

    Args:
        config: k, temperature, seed, image size, precision and how many images.
        bank: the training images.
        queries: the test images, or those held out; None takes every fifth training image out of the bank.
        rows: what is measured.
        device: where the networks are.
        seconds: how long it may take; where all images take longer, a sample is measured.
        reporter: told of the wait.
    """
    class_names = bank.source.class_names
    if len(class_names) < 2:
        return None
    images = _images_of(config, bank, queries)
    precision = choose_precision(config.training.precision, device)
    networks: list[tuple[str, nn.Module, Preprocess]] = [("trained", rows.trained, preprocess_of(config))]
    if rows.before is not None:
        networks.append((rows.before_key, rows.before, preprocess_of(config)))
    if config.monitoring.final_images:
        images.keep(config.monitoring.final_images)
    elif seconds:
        images.keep(_affordable(rows.trained, images, preprocess_of(config), device, precision, len(networks), seconds))
    m, pixels = config.monitoring, _pixels_of(config)
    if rows.pixels:
        networks.append(("pixels", nn.Flatten(), pixels))
    scores, few = {}, {}
    right: dict[str, Tensor] = {}
    knn, num_bank, num_queries = None, 0, 0
    for number, (name, network, preprocess) in enumerate(networks):
        sides = _both_sides(network, images, preprocess, device, precision, reporter, number, len(networks))
        if any(len(side.labels) == 0 for side in sides):
            return None
        num_bank, num_queries = len(sides[0].labels), len(sides[1].labels)
        variants = {name: sides}
        if name == "pixels":
            mean = sides[0].features.mean(dim=0)
            variants["pixels_centred"] = [LabelledFeatures(s.features - mean, s.labels) for s in sides]
        knn = KnnProtocol(min(m.knn_k, num_bank), m.knn_temperature, len(class_names))
        for variant, (bank_side, query_side) in variants.items():
            right[variant] = knn.right(bank_side, query_side)
            scores[variant] = float(right[variant].double().mean())
            if rows.pixels and _allows_few_labels(bank_side.labels, len(class_names), knn.k):
                few[variant] = knn.few_label_accuracy(
                    bank_side, query_side, per_class=FEW_LABELS, num_draws=FEW_LABEL_DRAWS, seed=config.training.seed
                )
    assert knn is not None
    paired = compare_paired(right["trained"], right[rows.before_key]) if rows.before is not None else None
    protocol = _protocol(knn, images, num_bank, num_queries, precision) + (
        f"; pixels at {pixels.size} x {pixels.size}" if rows.pixels else ""
    )
    return Table(scores, few, protocol, num_queries, paired, images.is_sample)


def _images_of(config: Config, bank: ImageStore, queries: ImageStore | None) -> _Images:
    generator = np.random.Generator(np.random.PCG64([config.training.seed, 2**33]))
    streamed = layout_of(bank.source) is not None
    order = bank.draw(MAX_STREAMED if streamed else MAX_BANK, generator)
    if queries is None:
        which = "training images taken out of the bank (trained on, without labels: there is no test split)"
        images = _Images(bank, bank, order[len(order) // 5 :], order[: len(order) // 5], which)
        images.num_bank = len(bank) - images.num_queries if streamed else images.num_bank
        return images
    which = "training images held out" if config.data.holdout else "test images"
    asked = queries.draw(MAX_STREAMED if layout_of(queries.source) is not None else len(queries), generator)
    images = _Images(bank, queries, order, asked, which)
    images.num_bank, images.num_queries = len(bank) if streamed else images.num_bank, len(queries)
    return images


def _protocol(knn: KnnProtocol, images: _Images, num_bank: int, num_queries: int, precision: str) -> str:
    of_bank, of_queries = "", ""
    if images.is_sample:
        of_bank, of_queries = f" of {images.num_bank:,}", f" of {images.num_queries:,}"
    sample = "a random sample, for time: " if images.is_sample else ""
    return (
        f"k-NN, k = {knn.k}, T = {knn.temperature:g}, cosine; {sample}bank of {num_bank:,}{of_bank} training images, "
        f"queries {num_queries:,}{of_queries} {images.which}; features in {precision}"
    )


def _affordable(
    network: Network,
    images: _Images,
    preprocess: Preprocess,
    device: torch.device,
    precision: str,
    num_networks: int,
    seconds: float,
) -> int:
    """How many images can be embedded by so many networks in the time."""
    trial = images.bank_positions[:TRIAL_IMAGES].tolist()
    extract(network, images.bank, preprocess, trial[:4], device, precision=precision)
    began = time.perf_counter()
    extract(network, images.bank, preprocess, trial, device, precision=precision)
    each = (time.perf_counter() - began) / max(1, len(trial))
    return math.floor(max(seconds, LEAST_SECONDS) / max(each, 1e-9) / num_networks)


def _both_sides(
    network: Network, images: _Images, preprocess: Preprocess, device: torch.device, precision: str, reporter: Reporter,
    number: int, num_networks: int,
) -> list[LabelledFeatures]:  # fmt: skip
    done_before, total = number * images.num, num_networks * images.num
    sides = []
    for store, positions in ((images.bank, images.bank_positions), (images.queries, images.query_positions)):

        def tell(done: int, _: int, before: int = done_before) -> None:
            reporter.progress("measuring", before + done, total)

        sides.append(_labelled(network, store, preprocess, sorted(positions.tolist()), device, tell, precision))
        done_before += len(positions)
    return sides


def _pixels_of(config: Config) -> Preprocess:
    size = min(config.data.image_size, PIXEL_SIZE)
    return plain_pixels(preprocess_of(config), size)


def _labelled(
    network: Network, store: ImageStore, preprocess: Preprocess, positions: list[int], device: torch.device,
    progress: Callable[[int, int], None], precision: str,
) -> LabelledFeatures:  # fmt: skip
    labels = store.labels_of(positions).tolist()
    label_of = {position: label for position, label in zip(positions, labels, strict=True) if label >= 0}
    known = list(label_of)
    if not known:
        return LabelledFeatures(torch.empty(0, 1), torch.empty(0, dtype=torch.int64))
    kept, (features,) = extract(network, store, preprocess, known, device, precision=precision, progress=progress)
    return LabelledFeatures(features, torch.tensor([label_of[position] for position in kept]))


def _allows_few_labels(labels: Tensor, num_classes: int, k: int) -> bool:
    """Enough labels of every class to draw from, and as many in all as neighbours that vote."""
    counts = torch.bincount(labels, minlength=num_classes)
    return int(counts.min()) > FEW_LABELS and k <= FEW_LABELS * num_classes
