"""A module that the tests of studies start in place of the worker."""

import json
import os
import signal
import time
from pathlib import Path

from stopgrad.distributed.launch import answer
from stopgrad.errors import Interrupted, NonFiniteLossError
from stopgrad.stop import StopRequest


def main():
    answer(work)


def work(request, reporter):
    run = Path(request["run"])
    run.mkdir(parents=True, exist_ok=True)
    seed, lr = request["settings"]["seed"], request["settings"]["lr"]
    (run / f"begun-{time.time_ns()}").touch()
    if lr == 1.5:
        raise NonFiniteLossError("the loss is no longer finite at step 3.")
    if lr == 2.5:
        os._exit(9)
    if lr == 4.5:
        raise RuntimeError("out of memory")
    if lr == 5.5:
        # A signal of somebody else's, where nothing is there to catch it.
        os.kill(os.getpid(), signal.SIGTERM)
    if lr == 3.5 and request["data"] == "wait":
        with StopRequest() as stop:
            for _ in range(600):
                time.sleep(0.05)
                if stop.requested():
                    (run / "saved").touch()
                    raise Interrupted("by SIGTERM after step 5.")
    result = {
        "knn_top1": 0.5 + seed / 100 + lr / 10, "linear_top1": 0.6, "knn": {"trained": 0.5}, "verdict": "not_collapsed",
        "final": dict.fromkeys(("feature_std", "effective_rank", "projection_std", "projection_effective_rank"), 1.0),
        "untrained": {"knn_top1": 0.3}, "passes": 600.0, "passes_an_image": 6, "seconds": 2.0, "cpu_seconds": 1.0,
        "epochs": 1, "curve": [{"epoch": 1, "passes": 600.0, "seconds": 2.0, "knn_top1": 0.5}],
        "knn_protocol": "k-NN", "linear_protocol": "linear", "threads": os.environ.get("OMP_NUM_THREADS"),
        "environment": {"device_type": "cpu", "device": "a machine", "versions": {"torch": "2"}},
    }  # fmt: skip
    (run / "checkpoints").mkdir()
    (run / "cell.json").write_text(json.dumps(result))
