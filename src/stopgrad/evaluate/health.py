"""The health of an encoder, without labels: whether its features have collapsed, beside those before training."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cache.store import ImageStore, load_images
from stopgrad.config import Config
from stopgrad.data.decode import Progress
from stopgrad.data.python import as_splits
from stopgrad.data.shards.order import draw_from
from stopgrad.data.sources import Subset
from stopgrad.distributed.rank import Rank
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.features import extract, num_not_finite
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluate.shared.baselines import before_training
from stopgrad.evaluate.shared.holdout import check_seed
from stopgrad.evaluate.shared.prepare import opened
from stopgrad.evaluate.shared.splits import Images, images_of
from stopgrad.hardware import plain_batch_size
from stopgrad.loader.loader import Loader
from stopgrad.loader.preprocess import settings_of, shortest_of
from stopgrad.metrics.measures import MEANINGS, measure
from stopgrad.metrics.verdict import START, UNTRAINED, WHAT_TO_TRY, find_feature_collapse
from stopgrad.reporter import QuietReporter, Reporter

NUM_IMAGES = 2000
# Images of which two views are made: they cost a decoding and two passes each, and settle the mean well enough.
VIEW_PAIRS = 256
LEAST = 16
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
    before_is: str
    """What the network before training was: `untrained`, or with weights `as it started`."""
    protocol: str
    """Images, seed and views, in one line."""
    num_images: int
    image_size: int = 0
    """Side, in pixels, of what the encoder sees."""
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
        data: images, as `as_splits` takes them (of a data set with splits, the training images); None: those that the
            run was trained on.
        num_images: how many of them are drawn at random; 16 or more, or all that there are.
        batch_size: images a forward pass; 0: chosen for the device.
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
    loaded, run = opened(encoder)
    splits = as_splits(images_of(run, "DATA") if data is None else data)
    chosen = draw_from(splits.train, num_images, np.random.Generator(np.random.PCG64(seed)))
    drawn = Subset(splits.train, np.sort(chosen).tolist())
    store = load_images(
        drawn, shortest=shortest_for(loaded, run, seed), pixels=loaded.preprocess.pixels,
        progress=lambda done, total: reporter.progress("reading images", done, total),
    )  # fmt: skip
    if len(store) < LEAST:
        raise DataError(
            f"{splits.name} has {len(store)} readable images: a check needs at least {LEAST}.", topic="too-few-images"
        )
    backbone, place = loaded.placed(device)
    _, (features, *_) = extract(
        backbone, store, loaded.preprocess, None, place, batch_size=batch_size, precision="fp32",
        progress=lambda done, total: reporter.progress("embedding", done, total),
    )  # fmt: skip
    health = health_of(
        loaded, run, store, features, of=f"{len(splits.train):,} images of {splits.name}", place=place,
        batch_size=batch_size, seed=seed, reporter=reporter,
    )  # fmt: skip
    return replace(health, seconds=round(time.perf_counter() - began, 1))


def health_of(
    loaded: Encoder, run: RunDir | None, store: ImageStore, features: Tensor, *, of: str, place: torch.device,
    batch_size: int = 0, seed: int, compare: bool = True, reporter: Reporter,
) -> Health:  # fmt: skip
    """As `check`, of images that are embedded already.

    Args:
        loaded, run: the encoder, on the device, and its run.
        store: readable images, drawn by the seed.
        features: theirs, `[image dim]`, not normalised.
        of: what they were drawn from, in words.
        place: the device.
        batch_size, seed, reporter: as for `check`.
        compare: whether to measure the network before training as well.
    """
    config = _view_config(loaded, run, seed)
    views = _two_views(store, config, place)

    def sides(network: nn.Module, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second = _embed(network, views, lambda done, total: reporter.progress("embedding views", done, total))
        return features, first, second

    measured = sides(loaded.backbone, features)
    now: dict[str, float] = {}
    before: dict[str, float] | None = None
    before_is = UNTRAINED
    if broken := _not_finite_words(loaded.backbone, *measured):
        state, words = "not_finite", broken
    else:
        now = measure(*measured)
        found = before_training(loaded, run, store.source, seed, place) if compare else None
        if found is not None:
            before_is = START if found[0] == "start" else UNTRAINED
            _, (features_before, *_) = extract(
                found[1], store, loaded.preprocess, None, place, batch_size=batch_size, precision="fp32",
                progress=lambda done, total: reporter.progress(f"embedding {before_is}", done, total),
            )  # fmt: skip
            before = measure(*sides(found[1], features_before))
        verdict = find_feature_collapse(
            now, before, WHAT_TO_TRY if run is not None else WHAT_TO_TRY_ELSEWHERE, before_is
        )
        state = verdict.state if verdict else "healthy"
        words = verdict.words if verdict else _healthy_words(now, before, before_is)
    augmentation = "the run's own augmentation" if run is not None else "the default augmentation"
    p = loaded.preprocess
    return Health(
        encoder=loaded.name, state=state, words=words, measures=now, untrained=before, before_is=before_is,
        num_images=len(store), image_size=p.size,
        protocol=f"{len(store):,} of {of}, drawn by seed {seed}; shorter side {p.resize}, centre {p.size} x {p.size}, "
        f"eval mode; two views of {views.shape[1]} of them by {augmentation}",
        skipped=tuple({"name": name, "reason": reason} for name, reason in store.skipped.items()),
    )  # fmt: skip


def shortest_for(loaded: Encoder, run: RunDir | None, seed: int) -> int:
    """The shorter side that images may be reduced to, for the encoder and for views."""
    return max(shortest_of(_view_config(loaded, run, seed)), loaded.preprocess.shortest)


def _view_config(encoder: Encoder, run: RunDir | None, seed: int) -> Config:
    if run is not None:
        return run.read_config().replace(seed=seed)
    return Config().replace(**settings_of(encoder.preprocess), seed=seed)


def _two_views(store: ImageStore, config: Config, device: torch.device) -> Tensor:
    loader = Loader(store, config, Rank(), device)
    positions = np.linspace(0, len(store) - 1, min(len(store), VIEW_PAIRS)).astype(int)
    with ThreadPoolExecutor(1) as pool:
        return loader.views(loader.load(positions, 0, pool), device)[:2]


@torch.no_grad()
def _embed(network: nn.Module, views: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
    """Features of both views `[2 image channel size size]` of some images."""
    both = views.flatten(0, 1).to(memory_format=torch.channels_last)
    features = []
    for part in both.split(plain_batch_size(both.device, both.shape[-1])):
        features.append(network(part).float().cpu())
        progress(sum(map(len, features)), len(both))
    first, second = torch.cat(features).chunk(2)
    return first, second


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


def _healthy_words(now: Mapping[str, float], before: Mapping[str, float] | None, before_is: str) -> str:
    words = (
        f"Healthy: standard deviation {now['feature_std']:.2g}, effective rank {now['effective_rank']:.0f} of at most "
        f"{now['rank_ceiling']:.0f}, {now['dead_dimensions']:.0f} dead dimensions; two views of an image lie at "
        f"{now['relative_alignment']:.0%} of the squared distance between images"
    )
    if before is not None:
        words += f", {before_is} {before['relative_alignment']:.0%}"
    return f"{words}. What the features are worth, labels tell: stopgrad evaluate."
