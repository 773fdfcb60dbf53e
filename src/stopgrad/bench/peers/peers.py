"""Other libraries and a plain loop, on the same images, backbone, heads, batch and number of views."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from stopgrad.bench.clock import Figure, Window, flops_of, seconds_a_call
from stopgrad.bench.peers.lightly_blocks import BYOLMethod, SimSiamMethod, byol_views, simsiam_views
from stopgrad.bench.peers.paper import FourViews, PaperMethod
from stopgrad.bench.samples import sample
from stopgrad.data.sources import ImageSource
from stopgrad.hardware import autocast, choose_device, usable_cores
from stopgrad.nets.backbones import build_backbone, num_features
from stopgrad.nets.heads import build_predictor, build_projector

# As many as in Lightly's examples, where there are the cores for it.
MAX_WORKERS = 8
_FLOP_IMAGES = 8


class Encoded(Dataset[Any]):
    """Views of images that are decoded at each access."""

    def __init__(self, source: ImageSource, transform: Callable[[Image.Image], Any]) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        """The views of an image."""
        return self.transform(as_pillow(self.source.read(index)))


def as_pillow(data: "bytes | np.ndarray") -> Image.Image:
    """An encoded file, or pixels, as an RGB image."""
    return (Image.open(io.BytesIO(data)) if isinstance(data, bytes) else Image.fromarray(data)).convert("RGB")


def lightly_training(request: dict[str, Any]) -> list[Figure]:
    """Lightly's blocks in a plain loop."""
    kind, views = (BYOLMethod, byol_views) if request["method"] == "byol" else (SimSiamMethod, simsiam_views)
    method = kind(_backbone(request), request["projector_layers"], request["width"], request["predictor_width"])
    return _train(method, views(request["size"]), request)


def paper_training(request: dict[str, Any]) -> list[Figure]:
    """The paper's protocol in a plain loop."""
    backbone, width = _backbone(request), request["width"]
    projector = build_projector(num_features(backbone), width, width, request["projector_layers"])
    method = PaperMethod(backbone, projector, build_predictor(width, request["predictor_width"]))
    return _train(method, FourViews(request["size"]), request)


def lightly_views(request: dict[str, Any]) -> list[Figure]:
    """Lightly's SimSiam transform with its settings for CIFAR-10, on decoded images."""
    source = sample(request["data"], request["images"])
    images = [as_pillow(source.read(index)) for index in range(min(len(source), 1024))]
    return _transform_rate(simsiam_views(request["size"]), lambda i: images[i % len(images)], request, "memory")


def lightly_photo_views(request: dict[str, Any]) -> list[Figure]:
    """Lightly's SimSiam transform with its own defaults, on files that are decoded every time."""
    source, transform = sample(request["data"], request["images"]), simsiam_views(request["size"], blur=0.5)
    return _transform_rate(transform, lambda i: as_pillow(source.read(i % len(source))), request, "files")


def _transform_rate(
    transform: Callable[[Image.Image], list[Tensor]], image: Callable[[int], Image.Image], request: dict[str, Any],
    origin: str,
) -> list[Figure]:  # fmt: skip
    """Views a second, made one batch after another."""
    num, batch_size = 0, request["batch_size"]

    def make() -> None:
        nonlocal num
        made = [transform(image(num + place)) for place in range(batch_size)]
        num += batch_size
        for view in zip(*made, strict=True):
            torch.stack(view)

    took = seconds_a_call(make, request["seconds"])
    return [Figure(f"views from {origin}", "views/s", 2 * batch_size / took, bytes=4.0 * 3 * request["size"] ** 2)]


def _backbone(request: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_backbone(request["backbone"], stem="small", image_size=request["size"])


def _train(
    method: SimSiamMethod | BYOLMethod | PaperMethod, transform: Callable[[Image.Image], Any], request: dict[str, Any]
) -> list[Figure]:
    device, helped, batch_size = choose_device("auto"), request["helped"], request["batch_size"]
    precision = "bf16" if helped else "fp32"
    layout = torch.channels_last if helped else torch.contiguous_format
    method.to(device=device, memory_format=layout).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.06)
    dataset = Encoded(sample(request["data"], request["images"]), transform)
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        drop_last=True,
        num_workers=min(MAX_WORKERS, usable_cores()),
        # One epoch without end: between two, its workers would start anew, which a large data set hardly notices.
        sampler=RandomSampler(dataset, replacement=True, num_samples=10**7),
    )
    batches = iter(loader)
    window = Window(request["seconds"], device=device)
    views: list[Tensor] = []
    while not window.done:
        views = [view.to(device, memory_format=layout) for view in next(batches)]
        with autocast(device, precision):
            loss = method(views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        window.step()
    del batches
    rate = batch_size * window.num_steps / window.elapsed
    few = [view[:_FLOP_IMAGES] for view in views]
    flops = flops_of(lambda: method(few)) / len(few[0])
    return [
        Figure("an epoch from files", "images/s", rate, flops, precision),
        Figure("step", "views/s", rate * len(views), flops / len(views), precision),
    ]
