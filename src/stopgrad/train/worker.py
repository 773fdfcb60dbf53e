"""One of several processes that train together: what `pretrain` starts when a run has `devices`."""

from typing import Any, NoReturn

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.distributed.group import joined
from stopgrad.distributed.launch import answer
from stopgrad.distributed.rank import current_rank
from stopgrad.hardware import choose_device, share_cores
from stopgrad.reporter import Reporter, SilentReporter
from stopgrad.train.session import run_session
from stopgrad.stop import StopRequest


def main() -> NoReturn:
    """Do the request on standard input."""
    answer(_work)


def _work(request: dict[str, Any], reporter: Reporter) -> None:
    rank = current_rank()
    if not rank.leads:
        reporter = SilentReporter()
    config = Config(recipe=request["recipe"]).replace(**request["settings"])
    device = choose_device(config.training.device, rank.local)
    if device.type == "cpu":
        share_cores(rank.world)
    run, splits = RunDir(request["run"]), open_images(config.data.path)
    with StopRequest() as stop, joined(rank, device):
        run_session(config, splits, run, reporter, stop, device=device, resume=request["resume"])
