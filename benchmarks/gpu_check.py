"""Two minutes on a GPU before anything else runs on it, and its throughput afterwards.

    python benchmarks/gpu_check.py check              # the tests for CUDA, every method and guide, resuming
    python benchmarks/gpu_check.py throughput         # ResNet-18 at 32 px and ResNet-50 at 224 px, by batch size

`gpu_agenda.py` calls both. `--device cpu --tiny` tries them without a GPU.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import machine
from safetensors.torch import load_file

import stopgrad
from stopgrad.bench.clock import flops_of
from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.sources import ArraySource
from stopgrad.distributed.rank import Rank
from stopgrad.hardware import autocast, choose_device, choose_precision
from stopgrad.loader.loader import Loader
from stopgrad.methods import METHODS
from stopgrad.objective.guides import GUIDES
from stopgrad.settings import LOCAL_VIEW_METHODS, SIAMESE_METHODS
from stopgrad.train.build import build_method
from stopgrad.train.optim import build_optimizer

BATCHES = (256, 512, 1024, 2048, 4096)
NETWORKS = (("resnet18", "small", 32), ("resnet50", "standard", 224))
PEAKS = {"A100": 312e12, "A10": 125e12, "L4": 121e12, "L40S": 362e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}
"""bf16 operations a second without sparsity, as NVIDIA's data sheets give them (of the H100, the SXM form)."""


class Step:
    """Whole steps on made-up images: views, network, optimizer.

    Args:
        config: its batch size is that of a step.
        device: where.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self.device, self.precision = device, choose_precision("auto", device)
        side, rng = config.data.image_size, np.random.default_rng(0)
        shape = (config.training.batch_size, side, side, 3)
        store = load_images(ArraySource(rng.integers(0, 256, shape, dtype=np.uint8)), shortest=side, memory_gb=64.0)
        self.loader = Loader(store, config, Rank(), device)
        self.method = build_method(config, device).train()
        self.optimizer = build_optimizer(self.method, config)
        self.batch = next(batches := self.loader.batches(0, 1))
        batches.close()

    def views(self) -> tuple[torch.Tensor, ...]:
        """Of the batch."""
        return self.loader.all_views(self.batch, self.device)

    def loss(self, views: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Of the method."""
        with autocast(self.device, self.precision):
            return self.method(views[0], torch.Generator().manual_seed(0), *views[1:])[0]

    def take(self) -> torch.Tensor:
        """A step; its loss, on the device."""
        loss = self.loss(self.views())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.method.after_step(0.5)
        return loss.detach()


def variants() -> Iterator[dict[str, Any]]:
    """Every method, every guide, sources first and not, two views and four, local views where they go."""
    for method in METHODS:
        local = {"local_views": 2, "local_size": 8} if method in LOCAL_VIEW_METHODS else {}
        yield {"method": method, "views": 4, **local}
        for guide in GUIDES if method in SIAMESE_METHODS else ():
            for first in (False, True):
                yield {"method": method, "guide": guide, "source_first": first, **local}
        if method in SIAMESE_METHODS:
            yield {"method": method, "guide": "nearest_views", "guide_keep": 0.5, "source_first": True}


@contextmanager
def no_waiting(device: torch.device, forbidden: bool) -> Iterator[None]:
    """Within, torch raises where the host waits for the GPU."""
    if device.type != "cuda" or not forbidden:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_steps(device: torch.device, *, tiny: bool) -> list[dict[str, Any]]:
    """Two steps of every variant: a finite loss, a gradient for every weight, and no waiting in the second."""
    found = []
    for settings in variants():
        size = 16 if tiny else 32
        config = Config().replace(
            backbone="resnet10_16", image_size=size, batch_size=size // 2, projection_dim=64, workers=1, **settings
        )
        result: dict[str, Any] = dict(settings)
        try:
            step = Step(config, device)
            step.take()
            # Where images are left out they have to be counted.
            with no_waiting(device, "guide_keep" not in settings):
                loss = step.take()
            without = [n for n, p in step.method.named_parameters() if p.requires_grad and p.grad is None]
            result |= {"loss": float(loss), "without_gradient": without}
            result["passed"] = math.isfinite(result["loss"]) and not without
        except RuntimeError as error:
            result |= {"passed": False, "error": str(error).splitlines()[0]}
        found.append(result)
    return found


def check_resuming(device: torch.device, folder: Path) -> dict[str, Any]:
    """The largest difference of a weight between a run that was resumed and one that was not: must be 0."""
    settings = {
        "recipe": "digits", "steps": 8, "checkpoint_every_steps": 4, "baselines": False,
        "monitor_images": 64, "report": False, "devices": 1, "device": str(device), "checkpoint_keep": 2,
    }  # fmt: skip
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        whole = stopgrad.pretrain(out=folder / "whole", **settings)
        shutil.copytree(folder / "whole", folder / "part")
        for name in ("checkpoints/step-00000008.ckpt", "encoder.safetensors", "summary.json"):
            (folder / "part" / name).unlink()
        part = stopgrad.pretrain(out=folder / "part", resume=True, **settings)
    finally:
        torch.use_deterministic_algorithms(False)
    one, other = (load_file(run.path / "encoder.safetensors") for run in (whole, part))
    difference = max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
    return {"largest_difference": difference, "passed": difference == 0}


def check_tests() -> dict[str, Any]:
    """The tests marked `cuda`."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "tests/test_cuda.py"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1], timeout=600
    )
    return {"passed": ended.returncode == 0, "output": ended.stdout[-2000:]}


def check(device: torch.device, *, tiny: bool = False) -> dict[str, Any]:
    """All of it, and whether all of it passed; `tiny` is for a CPU."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {
            **machine([]), "device_used": str(device), "tests": check_tests(), "steps": check_steps(device, tiny=tiny),
            "resuming": check_resuming(device, Path(folder)),
        }  # fmt: skip
    found["passed"] = all(part["passed"] for part in (found["tests"], found["resuming"], *found["steps"]))
    return found | {"seconds": round(time.monotonic() - began, 1)}


def peak_of(name: str) -> float | None:
    """The data sheet's bf16 operations a second of a GPU, if it is known."""
    words = name.replace("-", " ").split()
    return next((peak for model, peak in PEAKS.items() if model in words), None)


def largest_product(device: torch.device, side: int) -> float:
    """Operations a second of a large matrix product, in the precision that training takes."""
    dtype = torch.bfloat16 if choose_precision("auto", device) == "bf16" else torch.float32
    left, right = (torch.randn((side, side), device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        left @ right

    return 2 * side**3 / _seconds(product, device, 10)


def _seconds(work: Any, device: torch.device, calls: int) -> float:
    for _ in range(2):
        work()
    _wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        work()
    _wait(device)
    return (time.perf_counter() - began) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def throughput(device: torch.device, *, tiny: bool = False) -> dict[str, Any]:
    """Images a second of whole steps and their share of the peak, by network, batch and `cudnn.benchmark`."""
    networks, batches, calls = (NETWORKS, BATCHES, 20) if not tiny else ((("resnet10_16", "small", 16),), (8, 16), 1)
    product = largest_product(device, 8192 if not tiny else 256)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    peak, rows = peak_of(name), []
    for backbone, stem, side in networks:
        each: float | None = None
        for batch in batches:
            for benchmark in (False, True) if device.type == "cuda" else (False,):
                torch.backends.cudnn.benchmark = benchmark
                config = Config().replace(
                    backbone=backbone, stem=stem, image_size=side, batch_size=batch, method="byol", workers=8
                )
                row: dict[str, Any] = {"backbone": backbone, "size": side, "batch": batch, "cudnn_benchmark": benchmark}
                try:
                    step = Step(config, device)
                    if each is None:
                        # Of the network: augmentation is work that brings no share of a peak.
                        views = step.views()
                        each = flops_of(partial(step.loss, views)) / batch
                    rate = batch / _seconds(step.take, device, calls)
                    row |= {"images_per_second": round(rate, 1), "flops_an_image": each}
                    row["share_of_largest_product"] = round(rate * each / product, 4)
                    row["share_of_peak"] = None if peak is None else round(rate * each / peak, 4)
                    if device.type == "cuda":
                        row["peak_memory_gb"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
                except torch.OutOfMemoryError:
                    row["images_per_second"] = None
                finally:
                    step = None
                    torch.backends.cudnn.benchmark = False
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
                        torch.cuda.reset_peak_memory_stats(device)
                rows.append(row)
    return {**machine([]), "gpu": name, "largest_product": product, "peak": peak, "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "throughput"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes to try it without a GPU")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    found = check(device, tiny=arguments.tiny) if arguments.what == "check" else throughput(device, tiny=arguments.tiny)
    print(json.dumps(found, indent=1))
    return 0 if found.get("passed", True) else 1


if __name__ == "__main__":
    sys.exit(main())
