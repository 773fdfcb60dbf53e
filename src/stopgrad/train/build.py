"""Builds the method with its weights, and the images it trains on, from a config."""

import copy
from functools import partial

import torch
from timm.models import group_parameters
from torch import nn

from stopgrad.cache.cache import ImageCache
from stopgrad.cache.store import ImageStore, load_images
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.data.shards.order import layout_of
from stopgrad.data.sources import ImageSource, Splits
from stopgrad.data.splits import hold_out
from stopgrad.distributed.rank import Rank
from stopgrad.encoder.features import settle_batchnorm
from stopgrad.errors import ConfigError, StopgradError
from stopgrad.hardware import autocast, choose_precision
from stopgrad.loader.preprocess import pixels_of, preprocess_of, shortest_of
from stopgrad.methods import build
from stopgrad.methods.protocol import Initial, Method
from stopgrad.methods.together import Together
from stopgrad.nets.backbones import features_shape, native_image_size, num_features, takes_any_size, takes_one_size
from stopgrad.reporter import Reporter
from stopgrad.settings import SIAMESE_METHODS, Data
from stopgrad.train.optim import build_optimizer

LEAST_TRIED = 4


def build_method(config: Config, device: torch.device, initial: Initial | None = None) -> Method:
    """The method with its initial weights, a function of the seed and of the backbone's.

    Args:
        config: the run's.
        device: where it goes.
        initial: what the backbone starts from, which is copied; None: weights drawn by the seed.

    Raises:
        ConfigError: a backbone that does not exist, initial weights that do not fit it, settings that do not, or a
            guide or method of one's own that cannot be had.
    """
    torch.manual_seed(config.training.seed)
    try:
        method = build(config, copy.deepcopy(initial))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except AssertionError as error:  # some of timm's networks check their size so
        raise ConfigError(
            f"backbone = {config.network.backbone!r} cannot be built for images of {config.data.image_size} x "
            f"{config.data.image_size}: {error}",
            topic="image-size",
        ) from error
    name, d = config.network.backbone, config.data
    local = config.data.local_side if config.objective.local_views else 0
    if local and not method.takes_local_views:
        raise ConfigError(
            f"local_views = {config.objective.local_views} with method = {config.objective.method!r}, which takes none "
            "(takes_local_views): use local_views = 0."
        )
    if local and not takes_any_size(method.backbone):
        raise ConfigError(
            f"local_views = {config.objective.local_views} with backbone {name!r}: it takes images of one size only, "
            f"image_size = {d.image_size}; use local_views = 0."
        )
    if takes_one_size(method.backbone):
        for setting, size in (("early_size", d.early_size), ("eval_size", d.eval_size)):
            if size not in (0, d.image_size):
                raise ConfigError(
                    f"{setting} = {size} with backbone {name!r}: it takes images of one size only, image_size = "
                    f"{d.image_size}; use {setting} = 0.",
                    topic="image-size",
                )
    for size in sorted({d.image_size, *(size for size in (d.early_size, d.eval_size, local) if size)}):
        _check_runs(method, size, name, len(config.augmentation.mean))
    if config.optimization.freeze_layers:
        _freeze(method, config.optimization.freeze_layers, name)
    method.norms_frozen = config.network.norm == "frozen"
    return method.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_start(config: Config, store: ImageStore, device: torch.device, initial: Initial | None = None) -> Method:
    """The network as training finds it, in eval mode.

    Where its weights are drawn, its BatchNorm statistics are settled on the images. A backbone that came with weights
    is left unchanged, its statistics too; only the projector's are settled.
    """
    method = build_method(config, device, initial).eval()
    settled = method if initial is None else method.encoder[1]
    settle_batchnorm(settled, method.project, store, preprocess_of(config), device)
    return method


def _check_runs(method: Method, image_size: int, name: str, channels: int) -> None:
    """Have two images of a side go through the backbone: what it does not take is said before anything begins."""
    try:
        shape = features_shape(method.backbone, image_size, channels)
    # Whatever the network raises.
    except Exception as error:
        raise ConfigError(
            f"backbone = {name!r} fails on images of {image_size} x {image_size} ({error}): its own size is "
            f"{native_image_size(name)}.",
            topic="image-size",
        ) from error
    if shape != (2, num_features(method.backbone)):
        raise ConfigError(
            f"backbone = {name!r} makes {tuple(shape)} of 2 images, not pooled features (2, "
            f"{num_features(method.backbone)})."
        )


def _freeze(method: Method, num_layers: int, name: str) -> None:
    """Have the backbone's first layers keep their weights, as timm groups them: the stem, then stages or blocks."""
    backbone: nn.Module = method.backbone
    if not hasattr(backbone, "group_matcher"):
        raise ConfigError(f"freeze_layers = {num_layers} with backbone {name!r}: nothing says what its layers are.")
    layer_of = group_parameters(backbone, backbone.group_matcher(coarse=True), reverse=True)  # type: ignore[operator]
    layers = sorted(set(layer_of.values()))
    if num_layers >= len(layers):
        raise ConfigError(
            f"freeze_layers = {num_layers} with backbone {name!r}: it has {len(layers)} layers; freeze fewer."
        )
    for parameter_name, parameter in backbone.named_parameters():
        if layer_of.get(parameter_name) in layers[:num_layers]:
            parameter.requires_grad_(False)


def largest_batch(config: Config, device: torch.device, initial: Initial | None, most: int) -> int:
    """Images a process that a training step has memory for: the largest power of two up to `most`, found by trying.

    Raises:
        StopgradError: there is no room for four.
    """
    size = 1 << max(most, 1).bit_length() - 1
    while size >= LEAST_TRIED:
        does_not_fit = False
        try:
            _try_steps(config, device, initial, size)
        except torch.OutOfMemoryError:
            # Its traceback holds what did not fit, until this block ends.
            does_not_fit = True
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if not does_not_fit:
            return size
        size //= 2
    raise StopgradError(
        f"{device} has no memory for a training step of {LEAST_TRIED} images of {config.data.image_size} pixels: use a "
        "smaller backbone or image_size, or another device.",
        topic="out-of-memory",
    )


def _try_steps(config: Config, device: torch.device, initial: Initial | None, num_images: int) -> None:
    """Train on so many images of noise; the second step has the optimizer's state too."""
    method = build_method(config, device, initial).train()
    optimizer = build_optimizer(method, config)
    # The loader keeps images on the device where they take no more than this.
    room = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else 0
    held = [torch.empty(room, dtype=torch.uint8, device=device)]
    if config.training.devices > 1:
        # DistributedDataParallel keeps gradients twice.
        held += [torch.empty_like(parameter) for parameter in method.parameters()]
    together = Together(method, Rank(), device, accumulate=config.training.accumulate)
    o, d, channels = config.objective, config.data, len(config.augmentation.mean)
    sizes = [(o.views, d.image_size), (o.local_views, d.local_side)]
    views = tuple(torch.randn(v, num_images, channels, side, side, device=device) for v, side in sizes if v)
    precision = partial(autocast, device, choose_precision(config.training.precision, device))
    for _ in range(2):
        method.batch.begin(range(num_images), num_images)
        optimizer.zero_grad(set_to_none=True)
        together.backward(views, torch.Generator(), precision)
        optimizer.step()
    del held


def out_of_memory(config: Config, device: torch.device, initial: Initial | None, world: int) -> StopgradError:
    """What to say where a step of training had no room: which batch has, as far as trying tells."""
    t = config.training
    shares = max(world, t.batch_groups)
    share = largest_batch(config, device, initial, t.batch_size // shares - 1)
    words = f"batch_size = {share * shares}"
    parts = -(-t.batch_size * t.accumulate // (share * shares))
    if config.objective.method in SIAMESE_METHODS and config.objective.guide_keep == 1:
        words += f", or accumulate = {parts} for the same batch in parts"
    of_shares = f" in {shares} groups" if shares > world else f" on {world} processes" if world > 1 else ""
    return StopgradError(
        f"{device} has no memory for a step of {t.batch_size // shares} images (batch_size = {t.batch_size}"
        f"{of_shares}). This fits: {words}.",
        topic="out-of-memory",
    )


def open_data(settings: Data, reporter: Reporter) -> Splits:
    """The images at the path that the settings name; raises `DataError` or `ConfigError` as `open_images` does."""
    return open_images(
        settings.path, settings, progress=lambda done, total: reporter.progress("indexing shards", done, total)
    )


def load_stores(
    config: Config, splits: Splits, reporter: Reporter, *, with_queries: bool = True
) -> tuple[ImageStore, ImageStore | None]:
    """Training images, and the images the final k-NN asks about (None: they are taken out of the training images).

    Args:
        config, splits, reporter: the run's.
        with_queries: whether this process is the one that measures the end.

    Raises:
        DataError: no readable image, or an unreadable one where that is refused.
        ConfigError: more images held out than there are, or a folder for the cache that cannot be used.
    """
    d = config.data
    train: ImageSource = splits.train
    queries = splits.test
    if d.shuffle_buffer and layout_of(train) is None:
        reporter.warn("shuffle_buffer has no effect: the images are not in shards, and are shuffled as a whole.")
    if d.holdout:
        train, queries = hold_out(train, d.holdout)

    cache = ImageCache(d.cache, d.cache_gb, say=reporter.say, warn=reporter.warn)

    def load(source: ImageSource, what: str) -> ImageStore:
        return load_images(
            source, shortest=shortest_of(config), memory_gb=d.memory_gb, workers=d.workers, strict=d.strict,
            cache=cache, progress=lambda done, total: reporter.progress(what, done, total), pixels=pixels_of(config),
        )  # fmt: skip

    store = load(train, "reading images")
    return store, load(queries, "reading test images") if queries is not None and with_queries else None
