"""One arm of the benchmark, in a process of its own (or several, for training): a fresh one for each measurement."""

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch

from stopgrad.bench.clock import PeakMemory
from stopgrad.distributed.launch import answer
from stopgrad.distributed.rank import current_rank
from stopgrad.hardware import share_cores
from stopgrad.reporter import Reporter

# The module of each kind of work; the function has its name. Imported when asked for: some need packages of peers.
WORK = {
    "limits": "limits",
    "decode": "parts",
    "cache": "parts",
    "batches": "parts",
    "augmentation": "parts",
    "photo_views": "parts",
    "embedding": "parts",
    "guide_share": "guide",
    "knn": "neighbours",
    "training": "training",
    "lightly_training": "peers.peers",
    "paper_training": "peers.peers",
    "timm_embedding": "peers.timm_loop",
    "lightly_views": "peers.peers",
    "lightly_photo_views": "peers.peers",
}


def main() -> NoReturn:
    """Do the request on standard input."""
    answer(_work)


def _work(request: dict[str, Any], _reporter: Reporter) -> None:
    rank = current_rank()
    if request["one_core"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if request["one_core"]:
        torch.set_num_threads(1)
    else:
        share_cores(rank.world)
    work = getattr(import_module(f"stopgrad.bench.{WORK[request['work']]}"), request["work"])
    with PeakMemory() as memory:
        figures = work(request)
    content = {"figures": [figure.as_dict() for figure in figures], "memory_mb": memory.megabytes}
    (Path(request["results"]) / f"{rank.index}.json").write_text(json.dumps(content), encoding="utf-8")
