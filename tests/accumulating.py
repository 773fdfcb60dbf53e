"""A module that the tests of accumulation start as several processes, and run as one: small trainings in float64."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from equality import CPU
from torch import nn

from stopgrad.config import Config
from stopgrad.distributed.group import joined
from stopgrad.distributed.launch import answer
from stopgrad.distributed.rank import current_rank
from stopgrad.methods import build
from stopgrad.methods.together import Together
from stopgrad.nets.norms import freeze_norms

NUM_IMAGES = 13


def network():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    net.num_features = 24
    return net


def made(settings, rank, accumulate, *, with_ddp=False, frozen=True):
    """The method and how it is trained; its BatchNorms do not look at the batch, if they are frozen."""
    torch.manual_seed(0)
    config = Config().replace(
        **settings, projection_dim=8, projector_width=12, predictor_width=4, backbone="own:network"
    )  # fmt: skip
    method = build(config, network()).double().train()
    if frozen:
        freeze_norms(method)
    together = Together(method, rank, CPU, accumulate=accumulate)
    if with_ddp:
        together.wrapped, together.gradients = nn.parallel.DistributedDataParallel(method), None
        method.zero_grad(set_to_none=True)
    return method, together


def views_of(step, settings):
    draws = torch.Generator().manual_seed(step)
    shape = (settings.get("views", 2), NUM_IMAGES, 3, 8, 8)
    return torch.rand(shape, generator=draws, dtype=torch.float64), torch.rand(
        (settings.get("local_views", 0), NUM_IMAGES, 3, 6, 6), generator=draws, dtype=torch.float64
    )


def trained(settings, rank, accumulate, *, with_ddp=False, steps=10):
    """The loss of each step, this process's part, and all weights at the end."""
    method, together = made(settings, rank, accumulate, with_ddp=with_ddp)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step in range(steps):
        views = views_of(step, settings)
        rows = list(range(rank.index, NUM_IMAGES, rank.world))
        method.batch.begin(rows, -(-NUM_IMAGES // rank.world))
        given = tuple(kind[:, rows] for kind in views if len(kind))
        optimizer.zero_grad(set_to_none=False)
        loss, _ = together.backward(given, torch.Generator().manual_seed(step), nullcontext)
        losses.append(loss.item())
        if together.gradients is not None:
            together.gradients.average(False, False)
        optimizer.step()
        method.after_step((step + 1) / steps)
    return np.array(losses), torch.cat([value.flatten() for value in method.state_dict().values()]).numpy()


def main():
    answer(work)


def work(request, reporter):
    rank = current_rank()
    torch.set_num_threads(1)
    with joined(rank, CPU):
        for with_ddp in (False, True):
            losses, state = trained(request["settings"], rank, 3, with_ddp=with_ddp)
            np.savez(Path(request["folder"]) / f"{rank.index} {with_ddp}.npz", losses=losses, state=state)
