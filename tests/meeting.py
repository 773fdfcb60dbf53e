"""A module that the tests of waiting start as several processes."""

import time
from datetime import timedelta

import torch

from stopgrad.distributed import group
from stopgrad.distributed.gradients import SharedGradients
from stopgrad.distributed.group import joined, others_wait, same_everywhere, wait_for_all
from stopgrad.distributed.launch import answer
from stopgrad.distributed.rank import current_rank
from stopgrad.errors import DataError


def main():
    answer(work)


def work(request, reporter):
    rank, do = current_rank(), request["do"]
    group.PATIENCE = timedelta(seconds=2)
    with joined(rank, torch.device("cpu")):
        if do == "work long":
            with others_wait(rank):
                time.sleep(5 if rank.leads else 0)
            reporter.say("done")
        elif do == "fail":
            with others_wait(rank):
                if rank.leads:
                    raise DataError("the first has no data")
        elif do == "stay away from the meeting":
            gradients = SharedGradients([torch.nn.Parameter(torch.zeros(3))], rank)
            time.sleep(60 if rank.index == 1 else 0)
            gradients.average(False, False)
        elif do == "stay away from the group":
            time.sleep(60 if rank.index == 1 else 0)
            wait_for_all(rank)
        elif do == "compare":
            reporter.say(f"{same_everywhere([3, 5], rank)} {same_everywhere([3, 5 + rank.index], rank)}")
