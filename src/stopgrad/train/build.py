"""From a config to a method with its weights, and to the images it trains on."""

import torch

from stopgrad.config import Config
from stopgrad.data.cache import ImageCache
from stopgrad.data.holdout import hold_out
from stopgrad.data.preprocess import preprocess_of, shortest_of
from stopgrad.data.sources import ImageSource, Splits
from stopgrad.data.store import ImageStore, load_images
from stopgrad.encoder.features import settle_batchnorm
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import ConfigError
from stopgrad.methods import METHODS
from stopgrad.methods.protocol import Method
from stopgrad.reporter import Reporter


def build_method(config: Config, device: torch.device) -> Method:
    """The method with its initial weights, a function of the seed (and of `init`).

    Raises:
        ConfigError: a backbone that does not exist, or initial weights that do not fit it.
    """
    torch.manual_seed(config.training.seed)
    init = config.network.init
    initial = None if init in ("random", "pretrained") else load_encoder(init).backbone.state_dict()
    try:
        method = METHODS[config.objective.method](config, initial)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if config.data.early_size and hasattr(method.backbone, "set_input_size"):
        raise ConfigError(
            f"early_size = {config.data.early_size} with backbone {config.network.backbone!r}: it takes images of one "
            "size only; use early_size = 0."
        )
    return method.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_untrained(config: Config, store: ImageStore, device: torch.device) -> Method:
    """The network as training found it, in eval mode, its BatchNorm statistics settled on the images."""
    method = build_method(config, device)
    settle_batchnorm(method, method.project, store, preprocess_of(config), device)
    return method


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
    if d.holdout:
        train, queries = hold_out(train, d.holdout)

    cache = ImageCache(d.cache, d.cache_gb, say=reporter.say, warn=reporter.warn)

    def load(source: ImageSource, what: str) -> ImageStore:
        return load_images(
            source, shortest=shortest_of(config), memory_gb=d.memory_gb, workers=d.workers, strict=d.strict,
            cache=cache, progress=lambda done, total: reporter.progress(what, done, total),
        )  # fmt: skip

    store = load(train, "reading images")
    return store, load(queries, "reading test images") if queries is not None and with_queries else None
