"""Our training, timed as it is used: store, loader and loop as `pretrain` runs them, without the monitors."""

from pathlib import Path
from typing import Any

from torch import Tensor

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.bench.clock import Figure, Window, flops_of, timed
from stopgrad.bench.parts import config_of
from stopgrad.bench.samples import sample
from stopgrad.cache.store import load_images
from stopgrad.distributed.group import joined
from stopgrad.distributed.rank import current_rank
from stopgrad.errors import DataError, Interrupted
from stopgrad.hardware import autocast, choose_device, choose_precision
from stopgrad.loader.loader import Loader
from stopgrad.loader.preprocess import shortest_of
from stopgrad.methods.protocol import Method
from stopgrad.reporter import SilentReporter
from stopgrad.stop import StopRequest
from stopgrad.train.build import build_method
from stopgrad.train.loop import Training
from stopgrad.train.monitor import Monitor

ENDLESS = 10**6
_FLOP_IMAGES = 8


class NoMonitor(Monitor):
    """Looks at nothing."""

    def __init__(self) -> None:
        pass

    def measure(self, method: Method) -> dict[str, float]:
        """Nothing."""
        return {}


class Stopwatch(SilentReporter, StopRequest):
    """Told of every step by the first process's loop, and asks for the end when enough of them are timed."""

    def __init__(self, window: Window) -> None:
        StopRequest.__init__(self)
        self.window = window
        self.training: Training | None = None
        self.phases: dict[str, float] = {}
        """Seconds by phase within the window."""
        self._at_start: dict[str, float] = {}

    def progress(self, what: str, done: int, total: int, details: str = "") -> None:
        """A step has ended."""
        assert self.training is not None
        if self.window.done:
            return
        started = self.window.started
        self.window.step()
        spent = dict(self.training.progress.time_spent)
        if self.window.started and not started:
            self._at_start = spent
        if self.window.done:
            self.phases = {name: spent[name] - self._at_start[name] for name in spent}

    def requested(self) -> str | None:
        """Why to stop, or None."""
        return "the clock" if self.window.done else super().requested()


def training(request: dict[str, Any]) -> list[Figure]:
    """Images a second over an epoch from files, decoding included, and what it is made of."""
    rank = current_rank()
    device = choose_device("auto", rank.local)
    config = config_of(request).replace(steps=ENDLESS, early_size=0)
    precision = choose_precision(config.training.precision, device)
    source = sample(request["data"], request["images"])
    # Every process decodes; never from the cache, so that each round does the same work.
    decode_seconds, store = timed(
        lambda: load_images(source, shortest=shortest_of(config), memory_gb=config.data.memory_gb)
    )
    watch = Stopwatch(Window(request["seconds"], device=device))
    with joined(rank, device), watch:
        loader = Loader(store, config, rank, device)
        if loader.batch_size < max(2, config.training.batch_size):
            raise DataError(f"{len(store)} images: a step of this benchmark takes {config.training.batch_size}.")
        method = build_method(config, device)
        run = RunDir(Path(request["results"]) / "run")
        run.make()
        loop = Training(
            config, method, loader, NoMonitor(), run, device=device, precision=precision, rank=rank,
            reporter=watch, stop=watch,
        )  # fmt: skip
        watch.training = loop
        try:
            loop.run()
        except Interrupted:
            if not watch.window.done and rank.leads:
                raise
    if not rank.leads:
        return []
    return _figures(loop, watch, decode_seconds / len(store), flops_an_image(loop))


def flops_an_image(loop: Training) -> float:
    """Operations of one step, for each image of it."""
    batch = next(batches := loop.loader.batches(0, 1))
    batches.close()
    views = loop.loader.views(batch, loop.device)[:, :_FLOP_IMAGES]
    loop.method.watch = False

    def loss() -> Tensor:
        with autocast(loop.device, loop.precision):
            return loop.method(views, loop.generator)[0]

    return flops_of(loss) / views.shape[1]


def _figures(loop: Training, watch: Stopwatch, decode_seconds: float, flops: float) -> list[Figure]:
    window, views = watch.window, loop.config.objective.views
    steady = loop.loader.batch_size * window.num_steps / window.elapsed
    held = loop.loader.store.stacked is not None or loop.loader.store.decoded is not None
    # Over one epoch: each image is decoded once, and every later epoch is at the steady rate.
    epoch = 1 / (1 / steady + decode_seconds) if held else steady
    share = {name: 100 * seconds / sum(watch.phases.values()) for name, seconds in watch.phases.items()}
    return [
        Figure("an epoch from files", "images/s", epoch),
        Figure("step", "images/s", steady, flops, loop.precision),
        Figure("step", "views/s", steady * views, flops / views, loop.precision),
        *(Figure(name, "% of the step", share[name]) for name in ("loading", "augmentation", "network")),
        Figure("outside the network", "% of the step", share["loading"] + share["augmentation"]),
        Figure("decoding", "% of one epoch", 100 * decode_seconds * epoch if held else 0.0),
    ]  # fmt: skip
