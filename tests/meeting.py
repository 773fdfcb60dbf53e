"""A module that the tests of waiting start as several processes."""

import os
import signal
import time
from datetime import timedelta

import torch

from stopgrad.distributed import group
from stopgrad.distributed.gradients import SharedGradients
from stopgrad.distributed.group import check_same, joined, others_wait, wait_for_all
from stopgrad.distributed.launch import answer
from stopgrad.distributed.rank import current_rank
from stopgrad.errors import DataError


def main():
    answer(work)


def work(request, reporter):
    rank, do = current_rank(), request["do"]
    if "without a watch" in request:
        group.PATIENCE = timedelta(seconds=2)
    with joined(rank, torch.device("cpu"), request.get("hang_seconds", 300.0)):
        if do == "work long":
            with others_wait(rank):
                time.sleep(7 if rank.leads else 0)
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
        elif do == "stop":
            # SIGSTOP: the process is there and does nothing, as one whose machine or file system hangs.
            if rank.index == request["which"]:
                os.kill(os.getpid(), signal.SIGSTOP)
            if request["alone"]:
                with others_wait(rank):
                    pass
            wait_for_all(rank)
        elif do == "compare":
            check_same({"steps": 5, "images": 7}, rank, DataError, "")
            check_same({"steps": 5, "images": 7 + rank.index}, rank, DataError, "All need the same.")
