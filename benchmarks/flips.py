"""How one process and two part in float32 and bf16 that are equal in float64: python benchmarks/flips.py

Digits, the recipe of that name, 50 steps, one thread a process. With global statistics two processes stand against one,
with local ones against one process that trains the batch in two groups. Printed are, at some steps, the share of images
whose source view is another, of all images since the step printed before, and the largest difference of a weight.
"""

import tempfile
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
import torch
from torch import Tensor, nn

from stopgrad.distributed.group import joined
from stopgrad.distributed.launch import answer, launch
from stopgrad.distributed.rank import Rank, current_rank
from stopgrad.hardware import autocast
from stopgrad.loader.loader import Loader
from stopgrad.methods.together import Together
from stopgrad.recipes import base_config
from stopgrad.reporter import Reporter, SilentReporter
from stopgrad.train.build import build_method, load_stores, open_data
from stopgrad.train.optim import build_optimizer, lr_factor, peak_lr, set_lr

CPU, STEPS, SHOWN = torch.device("cpu"), 50, (1, 2, 5, 10, 20, 50)
KINDS = {"global": {"batch_statistics": "global"}, "local": {"batch_statistics": "local", "batch_groups": 2}}


def trained(kind: str, precision: str, rank: Rank) -> dict[str, np.ndarray]:
    """Source views `[step, image]` that this process chose, and the weights `[shown step, weight]`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = base_config("digits").replace(**KINDS[kind], steps=STEPS)
    store, _ = load_stores(config, open_data(config.data, SilentReporter()), SilentReporter(), with_queries=False)
    method, loader = build_method(config, CPU).train(), Loader(store, config, rank, CPU)
    together = Together(method, rank, CPU, statistics=loader.statistics, groups=loader.groups)
    optimizer, generator = build_optimizer(method, config), torch.Generator()
    chosen: list[Tensor] = []
    choice: nn.Module = method.choice  # type: ignore[assignment]
    choice.register_forward_hook(lambda *call: chosen.append(call[2][0].argmax(dim=1)))
    sources, weights = [], []
    for step, batch in enumerate(loader.batches(0, STEPS)):
        rows, most = loader.rows(batch, step)
        method.batch.begin(rows, most)
        set_lr(optimizer, peak_lr(config), lr_factor(config, step, STEPS, loader.steps_per_epoch))
        if together.gradients is None:
            optimizer.zero_grad()
        else:
            together.gradients.clear()
        views = loader.all_views(batch, CPU)
        together.backward(
            views, generator, lambda: autocast(CPU, precision), rows, lambda process, at=step: 1000 * at + process
        )
        if together.gradients is not None:
            together.gradients.average(False, False)
        optimizer.step()
        method.after_step((step + 1) / STEPS)
        sources.append(torch.cat(chosen).numpy())
        chosen.clear()
        if step + 1 in SHOWN:
            weights.append(torch.cat([w.detach().flatten() for w in method.parameters()]).numpy())
    return {"sources": np.stack(sources), "weights": np.stack(weights)}


def work(request: dict[str, Any], reporter: Reporter) -> None:
    """One of the processes; what it found goes to the folder that the request names."""
    rank = current_rank()
    with joined(rank, CPU):
        np.savez(Path(request["folder"]) / f"{rank.index}.npz", **trained(request["kind"], request["precision"], rank))


def main() -> None:
    """Do the request on standard input."""
    answer(work)


def compare(kind: str, precision: str) -> None:
    """Two processes against one: a line of a table."""
    with tempfile.TemporaryDirectory() as folder:
        launch("flips", {"folder": folder, "kind": kind, "precision": precision}, 2, SilentReporter())
        first, second = (dict(np.load(Path(folder) / f"{index}.npz")) for index in range(2))
    alone = trained(kind, precision, Rank())
    # With global statistics each process chooses for all images, else for its own.
    sources = first["sources"] if kind == "global" else np.concatenate([first["sources"], second["sources"]], axis=1)
    flipped, apart = (sources != alone["sources"]).mean(axis=1), np.abs(first["weights"] - alone["weights"]).max(axis=1)
    since = [flipped[low:high].mean() for low, high in zip((0, *SHOWN), SHOWN, strict=False)]
    cells = " | ".join(f"{share:.1%}, {far:.0e}" for share, far in zip(since, apart, strict=True))
    print(f"| {kind}, {precision} | {cells} |", flush=True)


def run() -> None:
    """All of them."""
    print(f"| | {' | '.join(f'step {step}' for step in SHOWN)} |\n|---|{'---|' * len(SHOWN)}")
    for kind in KINDS:
        for precision in ("fp32", "bf16"):
            compare(kind, precision)


if __name__ == "__main__":
    cyclopts.run(run)
