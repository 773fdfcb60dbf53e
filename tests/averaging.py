"""A module that the tests of averaged gradients start as several processes."""

import json
import os

import torch

from stopgrad.distributed import gradients as gradients_module
from stopgrad.distributed.gradients import SharedGradients
from stopgrad.distributed.group import joined
from stopgrad.distributed.launch import answer
from stopgrad.distributed.rank import current_rank


def main():
    answer(work)


def no_room(num_bytes):
    raise OSError("no space left on device")


def work(request, reporter):
    rank = current_rank()
    if not request["shares"]:
        gradients_module._reserve = no_room
    with joined(rank, torch.device("cpu")):
        torch.manual_seed(rank.index)
        weights = [torch.nn.Parameter(torch.randn(*shape)) for shape in ((5, 3), (7,))]
        gradients = SharedGradients(weights, rank)
        said = {"shares": gradients._everyones is not None, "weights": weights[0].flatten().tolist(), "steps": []}
        for step in range(3):
            if step == request["dies_at"] and rank.index == 1:
                os._exit(9)
            gradients.clear()
            sum(w.sum() * (rank.index + 1) * (step + 1) for w in weights).backward()
            flags = gradients.average(step == 1 and rank.index == 2, False)
            said["steps"].append([flags, sorted({g for w in weights for g in w.grad.flatten().tolist()})])
        reporter.say(json.dumps(said))
