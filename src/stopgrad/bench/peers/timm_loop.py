"""Files to features by timm's own loop: its loader and transform, and the model in eval mode, in float32."""

from typing import Any

import numpy as np
import torch
from timm.data.config import resolve_data_config
from timm.data.loader import create_loader

from stopgrad.bench.clock import Figure, Window, flops_of
from stopgrad.bench.parts import config_of
from stopgrad.bench.peers.peers import as_pillow
from stopgrad.bench.samples import sample
from stopgrad.data.sources import ImageSource
from stopgrad.hardware import choose_device, plain_batch_size, usable_cores
from stopgrad.nets.backbones import build_backbone

# Beside our batch size: whichever is faster counts.
LARGER_BATCH = 32


class Labelled:
    """Images and labels as timm's loader takes them, over and over, so that its workers start once."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.transform: Any = None

    def __len__(self) -> int:
        return 10**7

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """The preprocessed image, decoded at each access, and a label."""
        return self.transform(as_pillow(self.source.read(index % len(self.source)))), 0


def timm_embedding(request: dict[str, Any]) -> list[Figure]:
    """Images a second, with the threads, workers and batch size that are fastest of a few.

    Fewer threads than cores are tried too: where another program is on one of them, a pass on all waits for it.
    """
    config, seconds = config_of(request), request["seconds"]
    device, size, network = choose_device("auto"), config.data.image_size, config.network
    model = build_backbone(network.backbone, stem=network.stem, image_size=size).eval().to(device)
    usual = resolve_data_config({"input_size": (3, size, size)}, model=model)
    source = sample(request["data"], request["images"])

    def rate(threads: int, workers: int, batch_size: int, window: Window) -> float:
        torch.set_num_threads(threads)
        images: Any = Labelled(source)
        loader = create_loader(
            images, input_size=usual["input_size"], batch_size=batch_size, num_workers=workers,
            interpolation=usual["interpolation"], mean=usual["mean"], std=usual["std"], crop_pct=usual["crop_pct"],
            crop_mode=usual["crop_mode"], device=device,
        )  # fmt: skip
        batches = iter(loader)
        with torch.inference_mode():
            while not window.done:
                batch, _ = next(batches)
                model(batch).cpu()
                window.step()
        return batch_size * window.num_steps / window.elapsed

    def briefly(threads: int, workers: int, batch_size: int) -> float:
        return rate(threads, workers, batch_size, Window(seconds / 3, device=device))

    ours, cores = plain_batch_size(device, size), usable_cores()
    ways = sorted({(threads, workers) for threads in (cores, max(1, cores - 1)) for workers in (0, 1, cores)})
    threads, workers = max(ways, key=lambda way: briefly(way[0], way[1], ours))
    batch_size = max(sorted({ours, LARGER_BATCH}), key=lambda number: briefly(threads, workers, number))
    found = rate(threads, workers, batch_size, Window(seconds, device=device))
    with torch.no_grad():
        flops = flops_of(lambda: model(torch.zeros((1, 3, size, size), device=device)))
    return [Figure("files to features", "images/s", found, flops), Figure("its batches", "images", batch_size),
            Figure("its threads", "threads", threads), Figure("its workers", "processes", workers)]  # fmt: skip
