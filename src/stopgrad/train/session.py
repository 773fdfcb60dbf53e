"""One process's part of a run: everything between a config and the finished run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from stopgrad.artifacts.environment import environment, machine_words
from stopgrad.artifacts.resume import check_same_command, checked_state
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.sources import Splits
from stopgrad.distributed.group import check_same, joined, others_wait, take_from_first
from stopgrad.distributed.launch import answer
from stopgrad.distributed.rank import current_rank
from stopgrad.encoder.load import load_encoder, save_start, spec_of
from stopgrad.errors import DataError, Interrupted, NonFiniteLossError
from stopgrad.hardware import choose_device, choose_precision, compile_problem, share_cores
from stopgrad.loader.loader import Loader
from stopgrad.loggers.background import Loggers
from stopgrad.loggers.protocol import FAILED, FINISHED, STOPPED
from stopgrad.methods.protocol import Initial, Method
from stopgrad.metrics.verdict import START, UNTRAINED
from stopgrad.nets.backbones import num_features
from stopgrad.nets.norms import has_batchnorm
from stopgrad.reporter import Reporter, SilentReporter
from stopgrad.settings import GROUPED_METHODS
from stopgrad.stop import StopRequest
from stopgrad.train.build import build_method, build_start, load_stores, open_data, out_of_memory
from stopgrad.train.finish import finish
from stopgrad.train.loop import Training
from stopgrad.train.monitor import CHOSEN_BY, Monitor
from stopgrad.train.optim import peak_lr
from stopgrad.train.start import initial_weights

LEAST_FOR_BATCHNORM, FEW_IMAGES = 4, 200


def run_session(
    config: Config, splits: Splits, run: RunDir, reporter: Reporter, stop: StopRequest, *, device: torch.device,
    resume: bool, own: nn.Module | None = None,
) -> None:  # fmt: skip
    """Load the images, train from the start or from the run folder's newest checkpoint, and finish.

    `own` is the backbone, where it is the caller's own network. An earlier run in the folder is touched only when
    everything that can go wrong before the first step has gone well.
    """
    rank = current_rank()
    precision = choose_precision(config.training.precision, device)
    check_same_command(config, rank, device, precision=precision, resume=resume)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with stop.at_once("before training began; resume starts over."), others_wait(rank):
        store, queries = load_stores(config, splits, reporter, with_queries=rank.leads)
    loader = Loader(store, config, rank, device)
    initial = own or _initial_weights(config, run, resume=resume)
    method = build_method(config, device, initial)
    _check_batch(loader, method, config, reporter)
    if config.training.compile:
        _compile(method, device, reporter)
    monitor = Monitor(store, loader, config, device)
    training = Training(
        config,
        method,
        loader,
        monitor,
        run,
        device=device,
        precision=precision,
        rank=rank,
        reporter=reporter,
        stop=stop,
        start_is=UNTRAINED if initial is None else START,
    )
    if resume:
        _take_up(training, reporter)
    _check_same_images(training)
    with others_wait(rank):
        if rank.leads:
            _begin(training, splits.name, initial, reporter, resume=resume)
    take_from_first(method.buffers(), rank)
    if config.training.time_limit_seconds:
        stop.limit(config.training.time_limit_seconds)
    with _logged(training, reporter) as loggers:
        _train(training, loggers, initial)
        state = f"the run is finished and its encoder is in {run.path}; resume measures what is missing."
        with stop.at_once(f"after training: {state}"), others_wait(rank):
            if rank.leads:
                if device.type == "cpu" and rank.world > 1:
                    share_cores(1)  # the other processes have done their part
                finish(training, queries, initial, reporter)


def _begin(training: Training, data_name: str, initial: Initial | None, reporter: Reporter, *, resume: bool) -> None:
    """What the first process does before the first step: the run folder, and the start measured."""
    config, run, device = training.config, training.run_dir, training.device
    if not resume:
        run.create(overwrite=True)
        run.write_config(config)
    if not training.progress.start:
        start = build_start(config, training.loader.store, device, initial)
        if initial is not None:
            save_start(run, start.backbone, spec_of(config, num_features(start.backbone)))
        training.progress.start = training.monitor.measure(start)
        training.progress.best_score = training.progress.start.get(CHOSEN_BY, 0.0)
        # Training begins with BatchNorm statistics of the images too: from zeros and ones, eval mode would show a
        # collapse for the first thirty steps. The weights are the same.
        training.method.load_state_dict(start.state_dict())
    before, now = run.read_environment() if resume else {}, environment(device, training.precision)
    if before and machine_words(before) != machine_words(now):
        now["begun_on"] = before.get("begun_on") or f"{machine_words(before)}, to step {training.progress.step}"
    threads = before.get("threads")
    if device.type == "cpu" and threads not in (None, now["threads"]):
        reporter.warn(
            f"the run was trained with {threads} threads a process so far and continues with {now['threads']}: sums "
            "have another order, and the last bits of the weights become others."
        )
    run.write_json(run.environment_file.name, {**now, "data": data_name})
    _introduce(training, data_name, reporter)


def _check_same_images(training: Training) -> None:
    """Refuse processes that would part on the way: they would wait for each other without end."""
    loader, progress = training.loader, training.progress
    check_same(
        {
            "readable images": len(loader.store), "digest of their names": loader.store.fingerprint(),
            "step": progress.step, "steps": training.total_steps, "images a step": loader.batch_size,
        },
        training.rank, DataError, "All need the same images and the same run folder.",
    )  # fmt: skip


def _initial_weights(config: Config, run: RunDir, *, resume: bool) -> dict[str, Tensor] | None:
    """What the backbone starts from: of a run that goes on as it was kept, wherever it came from."""
    if resume and config.network.init != "random" and run.start_file.is_file():
        return load_encoder(run.start_file).backbone.state_dict()
    return initial_weights(config)


@contextmanager
def _logged(training: Training, reporter: Reporter) -> Iterator[Loggers]:
    """The loggers of the run, of the first process alone; told at the end how it ended."""
    config, run = training.config, training.run_dir
    names = config.monitoring.logger if training.rank.leads else ()
    settings = {"recipe": config.recipe, **config.flat()}
    loggers = Loggers(names, run, settings, training.progress.step, reporter)
    state = FAILED
    try:
        yield loggers
        state = FINISHED
    except Interrupted:
        # Stopped while the final figures are measured, it is finished.
        state = FINISHED if training.progress.step == training.total_steps else STOPPED
        raise
    finally:
        loggers.finish(state, run.found_json(run.summary_file.name) if state == FINISHED else {})


def _train(training: Training, loggers: Loggers, initial: Initial | None) -> None:
    """Train to the end; where it ends before, the run's page says so."""
    lacks_memory = False
    try:
        training.run(loggers)
    except torch.OutOfMemoryError:
        # Its traceback holds what did not fit, until this block ends.
        lacks_memory = True
    except (Interrupted, NonFiniteLossError) as error:
        state = "stopped" if isinstance(error, Interrupted) else "failed"
        training.page.write_end(state, str(error), training.progress.start)
        raise
    if lacks_memory:
        raise out_of_memory(training.config, training.device, initial, training.rank.world)


def _compile(method: Method, device: torch.device, reporter: Reporter) -> None:
    """Have torch compile the networks when they first run; warn and continue where that fails."""
    problem = compile_problem(device)
    if problem is not None:
        reporter.warn(f"compile has no effect: torch.compile does not work here ({problem}).")
        return
    for network in method.children():
        # In place: names in checkpoints stay as they are.
        network.compile()


def _check_batch(loader: Loader, method: Method, config: Config, reporter: Reporter) -> None:
    count, world = len(loader.store), loader.rank.world
    shares = max(world, loader.groups)
    share = loader.batch_size // shares // config.training.accumulate
    least = LEAST_FOR_BATCHNORM if any(has_batchnorm(part) for part in method.children()) else 2
    if share < least:
        parts = f" and a part of accumulate = {config.training.accumulate}" if config.training.accumulate > 1 else ""
        why = "BatchNorm's statistics of fewer say nothing" if least > 2 else "one alone has none to differ from"
        of_shares = f"{shares} groups" if shares > world else f"{world} process{'es' if world != 1 else ''}"
        raise DataError(
            f"{count} readable image{'s' if count != 1 else ''} for {of_shares}: "
            f"training needs at least {least} each{parts} ({why}).",
            topic="too-few-images",
        )
    if loader.batch_size < config.training.batch_size:
        reporter.warn(
            f"batch_size = {config.training.batch_size} shrinks to {loader.batch_size}: there are only {count} images "
            f"(learning rate {peak_lr(config, loader.batch_size):.3g} accordingly)."
        )


def _take_up(training: Training, reporter: Reporter) -> None:
    """Go on from the newest checkpoint, where there is one."""
    loader = training.loader
    state = checked_state(
        training.run_dir, training.config, training.rank, reporter, fingerprint=loader.store.fingerprint(),
        batch_size=loader.batch_size, statistics=loader.statistics, precision=training.precision,
    )  # fmt: skip
    if state is not None:
        training.load_state(state)
        reporter.say(f"Resumed at step {training.progress.step} of {training.total_steps}.")


def _introduce(training: Training, data_name: str, reporter: Reporter) -> None:
    config, loader = training.config, training.loader
    store = loader.store
    classes = len(store.source.class_names)
    labels = f"{classes} classes, for monitoring only" if classes else "no labels"
    num_weights = sum(p.numel() for p in training.method.backbone.parameters())
    sides = f"{config.data.image_size} px" + (
        f", {config.data.local_side} px local" if config.objective.local_views else ""
    )
    for line in (
        f"Data      {data_name}: {len(store):,} images ({labels}), {store.whereabouts}",
        f"Method    {config.method_words}",
        f"Backbone  {config.network.backbone}, {num_weights / 1e6:.2f} M weights; views of {sides}",
        f"Training  {training.total_steps:,} steps of {loader.batch_size} images, "
        f"{training.total_steps / loader.steps_per_epoch:.4g} epochs; peak learning rate {training.peak_lr:.4g} = "
        f"{config.optimization.lr:g} x {loader.batch_size} / 256",
        *_parts_words(config),
        *_groups_words(training),
        f"Machine   {training.device}, {training.precision}, seed {config.training.seed}{_processes_words(training)}",
        f"Run       {training.run_dir.path}",
    ):
        reporter.say(line)
    if len(store) < FEW_IMAGES:
        reporter.say(
            f"Few       {len(store)} images are few, though each is augmented anew at every step: weights pretrained "
            "on many images (--init) do better, with training or without."
        )


def _parts_words(config: Config) -> list[str]:
    parts = config.training.accumulate
    what = "partners and choice are of the whole batch, BatchNorm's statistics of each part"
    return [f"Parts     each batch in {parts}, one after another: {what} (accumulate = {parts})"] if parts > 1 else []


def _groups_words(training: Training) -> list[str]:
    """What a batch's groups are, or how one process has the same."""
    num, world = training.loader.groups, training.rank.world
    if num > world:
        what = "BatchNorm, partners and negatives are of each group"
        return [f"Groups    each batch in {num}, as {num} processes have them: {what} (batch_groups = {num})"]
    if num == 1 or training.config.objective.method not in GROUPED_METHODS:
        return []
    return [f"Groups    one process computes the same with devices = 1, batch_groups = {num}"]


def _processes_words(training: Training) -> str:
    if training.rank.world == 1:
        return ""
    kind = training.loader.statistics
    own = "each with BatchNorm, partners and negatives of its own images"
    what = "which compute what one would" if kind == "global" else own
    return f"; {training.rank.world} processes, {what} (batch_statistics = {kind})"


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
    run, splits = RunDir(request["run"]), open_data(config.data, reporter)
    with StopRequest() as stop, joined(rank, device, config.training.hang_seconds):
        run_session(config, splits, run, reporter, stop, device=device, resume=request["resume"])
