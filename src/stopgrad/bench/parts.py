"""The parts of a run, one at a time: decoding, batches, views, embedding."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stopgrad.bench.clock import Figure, flops_of, seconds_a_call
from stopgrad.bench.samples import sample
from stopgrad.cache.cache import ImageCache
from stopgrad.cache.store import ImageStore, load_images
from stopgrad.config import Config
from stopgrad.data.sources import ImageSource
from stopgrad.distributed.rank import Rank
from stopgrad.encoder.encoder import Encoder
from stopgrad.hardware import choose_device, choose_precision
from stopgrad.loader.loader import Batch, Loader
from stopgrad.loader.preprocess import preprocess_of, shortest_of
from stopgrad.nets.backbones import build_backbone

_EMBED_IMAGES = 1024


def config_of(request: dict[str, Any]) -> Config:
    """The config an arm runs with."""
    return Config(recipe=request.get("recipe", "")).replace(**request["settings"])


def decode(request: dict[str, Any]) -> list[Figure]:
    """Files to pixels in memory, as training begins."""
    config, source = config_of(request), sample(request["data"], request["images"])
    stores: list[ImageStore] = []

    def load() -> None:
        stores[:] = [load_images(source, shortest=shortest_of(config), memory_gb=1e6)]

    took = seconds_a_call(load, request["seconds"], min_calls=1) / len(source)
    store = stores[0]
    pixels = np.mean([len(p.tobytes()) for i in range(min(len(store), 64)) if (p := store.pixels(i)) is not None])
    return [Figure("files to pixels in memory", "images/s", 1 / took, bytes=float(pixels))]


def cache(request: dict[str, Any]) -> list[Figure]:
    """Files to pixels in a new cache on disk, and the same cache opened again."""
    config, folder = config_of(request), Path(request["results"]) / "cache"
    source = _Listed(sample(request["data"], request["images"]))

    def load() -> ImageStore:
        kept = ImageCache(str(folder), 1e6, say=_nobody, warn=_nobody)
        return load_images(source, shortest=shortest_of(config), cache=kept)

    start = time.perf_counter()
    load()
    built = time.perf_counter() - start
    opened = seconds_a_call(load, request["seconds"])
    shutil.rmtree(folder)
    return [Figure("files to pixels in a new cache", "images/s", len(source) / built),
            Figure("a cache opened, its checksums verified", "images/s", len(source) / opened)]  # fmt: skip


class _Listed:
    """A sample with a cache entry of its own; a part of a data set would be taken out of the whole's."""

    def __init__(self, source: ImageSource) -> None:
        self.source, self.class_names = source, source.class_names
        self.read, self.label, self.name = source.read, source.label, source.name

    def __len__(self) -> int:
        return len(self.source)

    def cache_key(self) -> str:
        """There is but one in its folder."""
        return "sample"


def _nobody(_text: str) -> None:
    pass


def batches(request: dict[str, Any]) -> list[Figure]:
    """Batches of images that are in memory, before augmentation."""
    loader, store = _loader(request, memory_gb=1e6)
    pixels = store.pixels(0)
    assert pixels is not None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        steps = _steps(loader)
        took = seconds_a_call(lambda: loader.load(*next(steps), pool), request["seconds"])
    return [Figure("batches from memory", "images/s", loader.batch_size / took, bytes=float(pixels.nbytes))]


def augmentation(request: dict[str, Any]) -> list[Figure]:
    """Views on the device, from batches of images that are in memory."""
    return _views(*_loader(request, memory_gb=1e6), request, "views from memory")


def photo_views(request: dict[str, Any]) -> list[Figure]:
    """Views from files that are decoded every time."""
    return _views(*_loader(request, memory_gb=0.0), request, "views from files")


def embedding(request: dict[str, Any]) -> list[Figure]:
    """Files to features by an encoder in use."""
    config, source = config_of(request), sample(request["data"], min(request["images"], _EMBED_IMAGES))
    size, network, device = config.data.image_size, config.network, choose_device("auto")
    backbone: Any = build_backbone(network.backbone, stem=network.stem, image_size=size)
    encoder = Encoder(backbone.to(memory_format=torch.channels_last), preprocess_of(config))
    took = seconds_a_call(lambda: encoder.embed(source), request["seconds"], min_calls=1) / len(source)
    with torch.no_grad():
        flops = flops_of(lambda: backbone(torch.zeros((1, 3, size, size), device=device)))
    return [Figure("files to features", "images/s", 1 / took, flops, choose_precision("auto", device))]


def _loader(request: dict[str, Any], *, memory_gb: float) -> tuple[Loader, ImageStore]:
    config, source = config_of(request), sample(request["data"], request["images"])
    store = load_images(source, shortest=shortest_of(config), memory_gb=memory_gb)
    config = config.replace(batch_size=min(config.training.batch_size, len(store)))
    return Loader(store, config, Rank(), choose_device("auto")), store


def _steps(loader: Loader) -> Iterator[tuple[np.ndarray, int]]:
    """Positions and epoch of each step, without end."""
    step = 0
    while True:
        yield loader.indices(step), step // loader.steps_per_epoch
        step += 1


def _views(loader: Loader, _store: ImageStore, request: dict[str, Any], what: str) -> list[Figure]:
    device, steps = choose_device("auto"), _steps(loader)
    num_views, size = loader.config.objective.views, loader.config.data.image_size
    with ThreadPoolExecutor(1 if request["one_core"] else os.cpu_count()) as pool:

        def make() -> None:
            batch: Batch = loader.load(*next(steps), pool)
            loader.views(batch, device)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        took = seconds_a_call(make, request["seconds"])
    rate = num_views * loader.batch_size / took
    return [Figure(what, "views/s", rate, bytes=4.0 * 3 * size * size)]
