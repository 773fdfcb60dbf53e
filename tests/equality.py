"""A module that the tests of equality start as several processes, and run as one: many small trainings in float64.

As a program, it prints how far several processes are from one: python tests/equality.py
"""

import sys
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stopgrad.config import Config
from stopgrad.distributed.group import joined
from stopgrad.distributed.launch import answer, launch
from stopgrad.distributed.rank import Rank, current_rank
from stopgrad.methods import build
from stopgrad.methods.together import Together
from stopgrad.reporter import SilentReporter
from stopgrad.settings import GROUPED_METHODS

STEPS, CPU = 50, torch.device("cpu")


def cases():
    """Name, settings, images a batch, and whether one image of each batch is missing."""
    for method in ("simsiam", "byol"):
        for views, images in ((2, 13), (4, 12)):
            for guide in ("symmetric", "random_views", "nearest_views", "farthest_views"):
                for first in (False, True)[: 1 if guide == "symmetric" else 2]:
                    name = f"{method}, {guide}, {views} views" + (", source first" if first else "")
                    yield name, {"method": method, "guide": guide, "views": views, "source_first": first}, images, False
        for guide, first in (("symmetric", False), ("nearest_views", False), ("nearest_views", True)):
            name = f"{method}, {guide}, 2 views and 2 local" + (", source first" if first else "")
            yield name, {"method": method, "guide": guide, "source_first": first, "local_views": 2}, 12, False
    kept = {"guide_keep": 0.3, "source_first": True}
    yield "simsiam, the most decided 30%, source first", kept, 13, False
    yield "simsiam, 30% at random, source first", {**kept, "guide_keep_by": "random"}, 12, False
    others = {"targets": "mean_of_others", "views": 4, "partners": "permutation"}
    yield "simsiam, mean of others, plain permutation", others, 13, False
    yield "byol, an unreadable image in each batch", {"method": "byol"}, 13, True
    for method in ("simclr", "moco", "barlow_twins", "vicreg", "dino"):
        yield f"{method}", {"method": method}, 13, False
        yield f"{method}, 4 views", {"method": method, "views": 4}, 12, False
    yield "moco, more than two groups", {"method": "moco"}, 70, False
    yield "moco, an unreadable image in each batch", {"method": "moco"}, 12, True
    yield "dino, 2 local", {"method": "dino", "local_views": 2}, 12, False


def network():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )
    net.num_features = 24
    return net


def grouped_cases():
    """Those of `cases` that can train in groups, with three times the images: BatchNorm of two enlarges rounding."""
    return [
        (name, settings, 3 * images, missing)
        for name, settings, images, missing in cases()
        if settings.get("method", "simsiam") in GROUPED_METHODS
    ]


def trained(settings, num_images, missing, rank, groups=0, steps=STEPS, dtype=torch.float64):
    """The loss of each step, this process's part, and what the method then holds, in one row.

    `groups` of the batch are by themselves; 0: statistics are global.
    """
    torch.manual_seed(0)
    config = Config().replace(
        **settings, projection_dim=8, projector_width=12, predictor_width=4, queue_size=40, prototypes=10,
        backbone="own:network",
    )  # fmt: skip
    method = build(config, network()).to(dtype).train()
    together = Together(method, rank, CPU, statistics="local" if groups else "global", groups=groups)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.02, momentum=0.9)
    losses, draws = [], torch.Generator()
    for step in range(steps):
        draws.manual_seed(step)
        views = torch.rand((config.objective.num_views, num_images, 3, 8, 8), generator=draws, dtype=dtype)
        rows = [row for row in range(num_images) if not (missing and row == step % num_images)]
        rows = [row for row in rows if row % rank.world == rank.index]
        method.batch.begin(rows, -(-num_images // rank.world))
        own = views[:, rows]
        local = config.objective.local_views
        given = (own[: len(own) - local], *([own[-local:, :, :, :6, :6]] if local else []))
        optimizer.zero_grad(set_to_none=False)
        loss, _ = together.backward(given, draws, nullcontext, rows, partial(seed_of, step))
        losses.append(loss.item())
        if together.gradients is not None:
            together.gradients.average(False, False)
        optimizer.step()
        method.after_step((step + 1) / steps)
    return np.array(losses), torch.cat([value.double().flatten() for value in method.state_dict().values()]).numpy()


def seed_of(step, process):
    return step + 1000 * process


def main():
    answer(work)


def work(request, reporter):
    rank = current_rank()
    torch.set_num_threads(1)
    with joined(rank, CPU):
        results, groups = {}, request.get("groups", 0)
        given = grouped_cases() if groups else cases()
        for name, *case in [case for case in given if case[0] in request["names"]]:
            results[f"{name} losses"], results[f"{name} state"] = trained(*case, rank, groups)
    np.savez(Path(request["folder"]) / f"{rank.index}.npz", **results)


def table(*worlds):
    """Print the largest relative difference of a step's loss, and difference of a weight or buffer, of each case."""
    torch.set_num_threads(1)
    names, results = [name for name, *_ in cases()], {}
    for world in worlds:
        with tempfile.TemporaryDirectory() as folder:
            launch("equality", {"folder": folder, "names": names}, world, SilentReporter())
            results[world] = [dict(np.load(Path(folder) / f"{index}.npz")) for index in range(world)]
    for name, *case in cases():
        losses, state = trained(*case, Rank())
        cells = []
        for found in results.values():
            loss = np.mean([result[f"{name} losses"] for result in found], axis=0)
            apart = max(np.abs(result[f"{name} state"] - state).max() for result in found)
            cells += [f"{np.abs(loss / losses - 1).max():.0e}", f"{apart:.0e}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    table(*map(int, sys.argv[1:] or (2, 3)))
