"""Speed of several processes on a CPU with `batch_statistics` global and local: python benchmarks/one_batch.py

Both take turns in the same processes, on the same images in memory, so that whatever else the machine does slows both.
Printed are images a second of the whole batch, the median over turns, and the median ratio of a turn to the next.
"""

import statistics
import time
from typing import Any

import cyclopts
import torch

from stopgrad.distributed.group import any_of, joined
from stopgrad.distributed.launch import answer, launch
from stopgrad.distributed.rank import current_rank
from stopgrad.hardware import autocast, keep_freed_memory, share_cores
from stopgrad.methods.together import Together
from stopgrad.recipes import base_config
from stopgrad.reporter import Reporter, SilentReporter
from stopgrad.train.build import build_method

CPU = torch.device("cpu")


class Printer(SilentReporter):
    """Prints what the first process says."""

    def say(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)


def measure(backbone: str, seconds: float, batch_size: int, turns: int, reporter: Reporter) -> None:
    """Both settings in turns."""
    rank = current_rank()
    config = base_config("cifar10_small").replace(backbone=backbone, batch_size=batch_size)
    share = batch_size // rank.world
    rows = list(range(rank.index, batch_size, rank.world))
    arms: dict[str, Any] = {}
    for name in ("global", "local"):
        method = build_method(config, CPU).train()
        method.watch = False
        together = Together(method, rank, CPU, statistics=name)
        arms[name] = (method, together, torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9))
    views = torch.randn((config.objective.views * share, 3, 32, 32)).to(memory_format=torch.channels_last)
    views = views.unflatten(0, (-1, share))
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(turns + 1):
        for name, (method, together, optimizer) in arms.items():
            begun, steps = time.perf_counter(), 0
            while True:
                method.batch.begin(rows, share)
                with autocast(CPU, "bf16"):
                    loss, _ = together.wrapped(views, torch.Generator().manual_seed(steps))
                together.gradients.clear()
                loss.backward()
                ends, _ = together.gradients.average(rank.leads and time.perf_counter() - begun > seconds, False)
                optimizer.step()
                method.after_step(0.0)
                steps += 1
                if ends:
                    break
            if turn:
                speeds[name].append(batch_size * steps / (time.perf_counter() - begun))
    any_of(False, rank)
    if rank.leads:
        ratio = statistics.median(a / b for a, b in zip(speeds["global"], speeds["local"], strict=True))
        medians = ", ".join(f"{name} {statistics.median(found):,.0f} images/s" for name, found in speeds.items())
        norms = sum("Norm" in type(part).__name__ for part in arms["global"][0].encoder.modules())
        reporter.say(
            f"{backbone}, {config.objective.method}, {norms} norms, batch {batch_size}, {rank.world} processes: "
            f"{medians}; global / local {ratio:.2f}"
        )


def main() -> None:
    """What each process does."""
    answer(work)


def work(request: dict[str, Any], reporter: Reporter) -> None:
    """The request of `run`."""
    rank = current_rank()
    share_cores(rank.world)
    keep_freed_memory()
    with joined(rank, CPU):
        measure(**request, reporter=reporter)


def run(*backbones: str, processes: int = 2, seconds: float = 2.0, turns: int = 5, batch_size: int = 256) -> None:
    """Measure backbones, ours of CIFAR size if none is named."""
    for backbone in backbones or ("resnet10_16", "resnet18"):
        request = {"backbone": backbone, "seconds": seconds, "batch_size": batch_size, "turns": turns}
        launch("one_batch", request, processes, Printer())


if __name__ == "__main__":
    cyclopts.run(run)
