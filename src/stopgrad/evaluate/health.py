"""The health of an encoder, without labels: whether its features have collapsed, beside the untrained network's."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.loader import Loader
from stopgrad.data.preprocess import shortest_of
from stopgrad.data.sources import Subset
from stopgrad.data.store import ImageStore, load_images
from stopgrad.distributed import Rank
from stopgrad.encoder.embed import Encoder
from stopgrad.encoder.features import extract, num_not_finite
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluate.baselines import untrained_like
from stopgrad.evaluate.holdout import check_seed
from stopgrad.evaluate.sides import Images, images_of, splits_of
from stopgrad.evaluate.subject import opened
from stopgrad.metrics.collapse import (
    alignment,
    dead_dimensions,
    effective_rank,
    feature_std,
    first_component_share,
    mean_squared_distance,
    uniformity,
)
from stopgrad.metrics.verdict import WHAT_TO_TRY, find_feature_collapse
from stopgrad.reporter import QuietReporter, Reporter

NUM_IMAGES = 2000
# Images of which two views are made: they cost a decoding and two passes each, and settle the mean well enough.
VIEW_PAIRS = 256
LEAST = 16
MEANINGS: Mapping[str, str] = MappingProxyType({
    "feature_std": "0: one point for all; 1: spread evenly",
    "effective_rank": "directions that the features use",
    "rank_ceiling": "for so many dimensions and images",
    "first_component_share": "of the variance; 100%: all on a line",
    "dead_dimensions": "deviation below 1% of the usual",
    "dead_share": "of all dimensions",
    "alignment": "squared distance of two views, 0 to 4",
    "relative_alignment": "of that of images; learning lowers it",
    "uniformity": "0: one point for all; -4: spread evenly",
})  # fmt: skip
WHAT_TO_TRY_ELSEWHERE = (
    "See first whether these are the right weights, and the preprocessing they were trained with. If so: a predictor, "
    "an EMA target or a lower learning rate helps against collapse."
)


@dataclass(frozen=True)
class Health:
    """What `check` found."""

    encoder: str
    state: str
    """`healthy`, `partly_collapsed` or `collapsed`; `not_finite` where features hold NaN or infinite numbers."""
    words: str
    """The verdict for people, with what to try."""
    measures: Mapping[str, float]
    """By the names of `MEANINGS`; none where the features are not finite."""
    untrained: Mapping[str, float] | None
    """The same of the network before training; None where it is not known how it began, or there is nothing to compare
    with it."""
    protocol: str
    """Images, seed and views, in one line."""
    num_images: int
    seconds: float = 0.0
    skipped: tuple[Mapping[str, str], ...] = ()
    """Images that could not be read: `name` and `reason`."""

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {**asdict(self), "meanings": dict(MEANINGS)}


def check(
    encoder: str | Path | Encoder, data: Images | None = None, *, num_images: int = NUM_IMAGES, batch_size: int = 0,
    device: str = "auto", seed: int = 0, reporter: Reporter | None = None,
) -> Health:  # fmt: skip
    """Say whether an encoder has collapsed, without labels.

    Args:
        encoder: an encoder, or what `load_encoder` takes.
        data: images (a path or an `ImageSource`; of a data set with splits, the training images); None: those that the
            run was trained on.
        num_images: how many of them are drawn at random; 16 or more, or all that there are.
        batch_size: images a forward pass; 0: what the device is fast at.
        device: as the setting `device`.
        seed: of the draw, of the views and of the untrained network.
        reporter: told of progress.

    Returns:
        Measures on eval-mode features, computed in float32: small deviations are what is judged. The two views are the
        run's own augmentation, or for an encoder without a run the default one (random crops of 20% and more, flips,
        colour jitter, grey). The rules are those of stopgrad/metrics/verdict.py.

    Raises:
        ConfigError: no images given and none known, `num_images` too small, or a negative seed.
        DataError: fewer than 16 readable images.
        CheckpointError: no encoder there.
    """
    began = time.perf_counter()
    reporter = reporter or QuietReporter()
    check_seed(seed)
    if num_images < LEAST:
        raise ConfigError(f"images = {num_images}: must be at least {LEAST}.")
    subject, run = opened(encoder)
    splits = splits_of(images_of(run, "DATA") if data is None else data)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(splits.train))
    drawn = Subset(splits.train, np.sort(order[:num_images]).tolist())
    config = _view_config(subject, run, seed)
    store = load_images(
        drawn, shortest=max(shortest_of(config), subject.preprocess.shortest),
        progress=lambda done, total: reporter.progress("reading images", done, total),
    )  # fmt: skip
    if len(store) < LEAST:
        raise DataError(f"{splits.name} has {len(store)} readable images: a check needs at least {LEAST}.")
    backbone, place = subject.placed(device)
    views = _two_views(store, config, place)

    def features_by(network: nn.Module, words: str) -> tuple[Tensor, Tensor, Tensor]:
        _, (features, *_) = extract(
            network, store, subject.preprocess, None, place, batch_size=batch_size, precision="fp32",
            progress=lambda done, total: reporter.progress(words, done, total),
        )  # fmt: skip
        return features, _embed(network, views[0]), _embed(network, views[1])

    features = features_by(backbone, "embedding")
    now: dict[str, float] = {}
    before: dict[str, float] | None = None
    if broken := _not_finite_words(backbone, *features):
        state, words = "not_finite", broken
    else:
        now = measure(*features)
        if (untrained := untrained_like(subject, drawn, seed, place)) is not None:
            before = measure(*features_by(untrained, "embedding by the untrained network"))
        verdict = find_feature_collapse(now, before, WHAT_TO_TRY if run is not None else WHAT_TO_TRY_ELSEWHERE)
        state, words = (verdict.state, verdict.words) if verdict else ("healthy", _healthy_words(now, before))
    augmentation = "the run's own augmentation" if run is not None else "the default augmentation"
    p = subject.preprocess
    return Health(
        encoder=subject.name, state=state, words=words, measures=now, untrained=before, num_images=len(store),
        protocol=f"{len(store):,} of {len(splits.train):,} images of {splits.name}, drawn by seed {seed}; shorter side "
        f"{p.resize}, centre {p.size} x {p.size}, eval mode; two views of {views.shape[1]} of them by {augmentation}",
        seconds=round(time.perf_counter() - began, 1),
        skipped=tuple({"name": name, "reason": reason} for name, reason in store.skipped.items()),
    )  # fmt: skip


def measure(features: Tensor, first: Tensor, second: Tensor) -> dict[str, float]:
    """The measures of features `[image dim]` and of those of two views, by the names of `MEANINGS`."""
    dead = dead_dimensions(features)
    between = alignment(first, second)
    return {
        "feature_std": feature_std(features),
        "effective_rank": effective_rank(features),
        "rank_ceiling": float(min(len(features) - 1, features.shape[1])),
        "first_component_share": first_component_share(features),
        "dead_dimensions": float(dead.sum()),
        "dead_share": float(dead.double().mean()),
        "alignment": between,
        "relative_alignment": between / max(mean_squared_distance(first), 1e-12),
        "uniformity": uniformity(features),
    }


def _view_config(encoder: Encoder, run: RunDir | None, seed: int) -> Config:
    p = encoder.preprocess
    if run is not None:
        return run.read_config().replace(seed=seed)
    return Config().replace(image_size=p.size, mean=p.mean, std=p.std, seed=seed)


def _two_views(store: ImageStore, config: Config, device: torch.device) -> Tensor:
    loader = Loader(store, config, Rank(), device)
    positions = np.linspace(0, len(store) - 1, min(len(store), VIEW_PAIRS)).astype(int)
    with ThreadPoolExecutor(1) as pool:
        return loader.views(loader.load(positions, 0, pool), device)[:2]


@torch.no_grad()
def _embed(network: nn.Module, views: Tensor) -> Tensor:
    return torch.cat([network(part).float().cpu() for part in views.split(32)])


def _not_finite_words(network: nn.Module, features: Tensor, first: Tensor, second: Tensor) -> str:
    """Which features hold NaN or infinite numbers, and whether the weights do; empty where none does."""
    num, num_views = num_not_finite(features), num_not_finite(first) + num_not_finite(second)
    if not num and not num_views:
        return ""
    whose = f"{num:,} of {len(features):,} images" if num else f"{num_views:,} of {2 * len(first):,} augmented views"
    words = f"Not finite: the features of {whose} hold NaN or infinite numbers, so that nothing can be measured. "
    weights = network.state_dict()
    damaged = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if damaged:
        return (
            f"{words}So {'does' if len(damaged) == 1 else 'do'} {len(damaged)} of the network's {len(weights)} "
            f"tensors, {damaged[0]} first: training has diverged, or the file is damaged. Take an earlier checkpoint, "
            "or train with a lower learning rate."
        )
    return (
        f"{words}The weights are finite, so that a layer overflows: see whether the preprocessing is the one that they "
        "were trained with."
    )


def _healthy_words(now: Mapping[str, float], before: Mapping[str, float] | None) -> str:
    words = (
        f"Healthy: spread {now['feature_std']:.2g}, effective rank {now['effective_rank']:.0f} of at most "
        f"{now['rank_ceiling']:.0f}, {now['dead_dimensions']:.0f} dead dimensions; two views of an image lie at "
        f"{now['relative_alignment']:.0%} of the squared distance between images"
    )
    if before is not None:
        words += f", untrained {before['relative_alignment']:.0%}"
    return f"{words}. What the features are worth, labels tell: stopgrad evaluate."
