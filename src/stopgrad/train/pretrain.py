"""The main job: from images to a run folder with a trained backbone."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stopgrad.artifacts.run_dir import RunDir, environment
from stopgrad.config import Config, without_effect
from stopgrad.data.loader import Loader
from stopgrad.data.preprocess import preprocess_of, shortest_of
from stopgrad.data.probe import recipe_for
from stopgrad.data.sources import ImageSource, Splits, Subset, open_images
from stopgrad.data.store import ImageStore, load_images
from stopgrad.distributed import Rank, current_rank, launch, start, stop, wait_for_all
from stopgrad.encoder.embed import Encoder
from stopgrad.encoder.load import load_encoder, save_encoder, spec_of
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.hardware import choose_device, choose_precision
from stopgrad.methods import METHODS
from stopgrad.methods.protocol import Method
from stopgrad.nets.backbones import num_features
from stopgrad.recipes import base_config, resolve
from stopgrad.train.baselines import Table, measure_table
from stopgrad.train.loop import Training
from stopgrad.train.monitor import Monitor, settle_batchnorm
from stopgrad.train.optim import peak_lr
from stopgrad.train.reporter import QuietReporter, Reporter
from stopgrad.train.stop import StopRequest
from stopgrad.train.verdict import judge

# Settings that may differ when a run goes on: they change where and how it runs, not what it computes.
FREE_ON_RESUME = frozenset(
    {"path", "workers", "memory_gb", "strict", "device", "checkpoint_every_steps", "checkpoint_keep", "log_every_steps",
     "time_limit_seconds", "monitor_every_epochs", "monitor_images", "knn_k", "knn_temperature"}
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    """The run folder."""
    metrics: dict[str, Any]
    """What summary.json says at the end: final metrics, baselines, verdict."""

    @cached_property
    def encoder(self) -> Encoder:
        """The trained backbone with its preprocessing."""
        return load_encoder(self.path)


def pretrain(
    data: str | Path | ImageSource | None = None, *, out: str | Path, recipe: str | None = None,
    config: str | Path | None = None, resume: bool = False, overwrite: bool = False,
    reporter: Reporter | None = None, **overrides: Any,
) -> Run:  # fmt: skip
    """Pretrain a backbone on unlabelled images.

    Args:
        data: a folder of images, a parquet file or folder, an `ImageSource`; None: scikit-learn's digits.
        out: the run folder.
        recipe: settings to start from; None: chosen by the images.
        config: a TOML file of settings, which go before the recipe's.
        resume: go on with the run in `out` from its newest checkpoint.
        overwrite: begin anew in `out`; files of an earlier run go, foreign files stay.
        reporter: who is told of progress; None: nobody, and warnings come as Python warnings.
        **overrides: any settings by name, such as `epochs=20`; they go before the config's.

    Returns:
        The finished run.

    Raises:
        ConfigError: a setting, recipe or run folder that cannot be used as given.
        DataError: no or too few readable images.
        CheckpointError: a damaged checkpoint, or one of another config.
        NonFiniteLossError: the loss became NaN.
        Interrupted: stopped on request, with everything saved; resume to go on.
    """
    reporter = reporter or QuietReporter()
    rank = current_rank()
    source = None if data is None or isinstance(data, (str, Path)) else data
    if isinstance(data, (str, Path)):
        overrides["path"] = str(data)
    recipe, given = resolve(recipe, config, overrides)
    run = RunDir(out)
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other: go on, or begin anew.")
    if resume and not run.is_run:
        raise ConfigError(f"{run.path} holds no run to resume: it has no config.toml.")
    if not resume:
        run.check_free(overwrite=overwrite)

    if resume:
        settings = _resumed_config(run, recipe, given)
        splits = _open(source, settings.data.path)
    else:
        splits = _open(source, given.get("path", ""))
        if recipe is None:
            recipe = recipe_for(splits)
            reporter.say(
                f"Recipe    {recipe}, by the size of the images (for others: --recipe; stopgrad recipes lists them)"
            )
        settings = base_config(recipe).replace(**given)
        for text in without_effect(settings, given):
            reporter.warn(text)

    if settings.training.devices > 1 and rank.world == 1:
        choose_device(settings.training.device)
        if not resume:
            _begin(run, settings, overwrite)
        launch(_join, settings.training.devices, settings, source, run, reporter)
    else:
        _train(settings, splits, run, reporter, rank, begin=not resume, overwrite=overwrite)
    return Run(run.path, run.read_summary())


def _join(settings: Config, source: ImageSource | None, run: RunDir, reporter: Reporter) -> None:
    """What each of several processes does."""
    splits = _open(source, settings.data.path)
    _train(settings, splits, run, reporter, current_rank(), begin=False, overwrite=False)


def _open(source: ImageSource | None, path: str) -> Splits:
    return open_images(path) if source is None else Splits("images in memory", source)


def _begin(run: RunDir, settings: Config, overwrite: bool) -> None:
    run.create(overwrite=overwrite)
    run.write_config(settings)


def _train(
    config: Config,
    splits: Splits,
    run: RunDir,
    reporter: Reporter,
    rank: Rank,
    *,
    begin: bool,
    overwrite: bool,
) -> None:
    device = choose_device(config.training.device, rank.local)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    precision = choose_precision(config.training.precision, device)
    if config.training.devices not in (1, rank.world):
        reporter.warn(f"devices = {config.training.devices} has no effect: {rank.world} processes were started.")
    with StopRequest() as stop_request:
        start(rank, device)
        try:
            if begin and rank.leads:
                _begin(run, config, overwrite)
            wait_for_all(rank)
            _train_here(config, splits, run, reporter, rank, device, precision, stop_request)
        finally:
            stop()


def _train_here(
    config: Config, splits: Splits, run: RunDir, reporter: Reporter, rank: Rank, device: torch.device, precision: str,
    stop_request: StopRequest,
) -> None:  # fmt: skip
    with stop_request.at_once("before training began; resume starts over."):
        train_store, query_store = _load(config, splits, reporter if rank.leads else QuietReporter())
    loader = Loader(train_store, config, rank)
    _check_batch(loader, config, reporter)
    method = _build(config, device)
    if device.type == "cuda" and rank.world > 1:
        method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
    monitor = Monitor(train_store, loader, config, device)
    training = Training(
        config, method, loader, monitor, run, device=device, precision=precision, rank=rank, reporter=reporter,
        stop=stop_request,
    )  # fmt: skip
    _take_up(training, run, reporter, precision)
    if rank.leads and not training.progress.untrained:
        training.progress.untrained = monitor.measure(_untrained(config, train_store, device))
    if rank.leads:
        run.write_json("environment.json", environment(device, precision))
        _introduce(config, splits, loader, training, reporter)
    if config.training.time_limit_seconds:
        stop_request.limit(config.training.time_limit_seconds)
    training.run()
    with stop_request.at_once("after training, before the figures were complete; resume measures them."):
        if rank.leads:
            _finish(config, run, training, monitor, train_store, query_store, reporter)
        wait_for_all(rank)


def _resumed_config(run: RunDir, recipe: str | None, given: Mapping[str, Any]) -> Config:
    """The config of the run in the folder, with such changes as do not change what it computes."""
    stored = run.read_config()
    if recipe is not None:
        # The same command with resume added: its recipe says the same as the stored config, or it is another run.
        given = {**base_config(recipe).replace(**given).flat(), **given} if recipe != stored.recipe else given
    wanted = stored.replace(**given)
    before, after = stored.flat(), wanted.flat()
    changed = [name for name in before if before[name] != after[name] and name not in FREE_ON_RESUME]
    if changed:
        list_of = ", ".join(f"{name} = {before[name]!r} there, {after[name]!r} now" for name in changed)
        raise CheckpointError(
            f"the run in {run.path} was begun with another config: {list_of}. Resume without, or begin another run."
        )
    return wanted


def _load(config: Config, splits: Splits, reporter: Reporter) -> tuple[ImageStore, ImageStore | None]:
    """Training images, and the images the final k-NN asks about (None: taken out of the training images)."""
    d = config.data
    train: ImageSource = splits.train
    queries = splits.test
    if d.holdout:
        if d.holdout >= len(train):
            raise ConfigError(f"holdout = {d.holdout}: there are only {len(train)} training images.")
        # Its own seed, so that runs of different seeds hold out the same images.
        order = np.random.Generator(np.random.PCG64(0)).permutation(len(train))
        queries = Subset(train, np.sort(order[: d.holdout]).tolist())
        train = Subset(train, np.sort(order[d.holdout :]).tolist())

    def load(source: ImageSource, what: str) -> ImageStore:
        return load_images(
            source, shortest=shortest_of(config), memory_gb=d.memory_gb, workers=d.workers, strict=d.strict,
            progress=lambda done, total: reporter.progress(what, done, total),
        )  # fmt: skip

    return load(train, "reading images"), None if queries is None else load(queries, "reading test images")


def _check_batch(loader: Loader, config: Config, reporter: Reporter) -> None:
    count = len(loader.store)
    if loader.batch_size // loader.rank.world < 2:
        raise DataError(
            f"{count} readable image{'s' if count != 1 else ''} for {loader.rank.world} process"
            f"{'es' if loader.rank.world != 1 else ''}: training needs at least 2 images each."
        )
    if loader.batch_size < config.training.batch_size and loader.rank.leads:
        reporter.warn(
            f"batch_size = {config.training.batch_size} shrinks to {loader.batch_size}: there are only {count} images "
            f"(learning rate {peak_lr(config, loader.batch_size):.3g} accordingly)."
        )


def _build(config: Config, device: torch.device) -> Method:
    """The method with its initial weights, a function of the seed."""
    torch.manual_seed(config.training.seed)
    try:
        method = METHODS[config.objective.method](config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    init = config.network.init
    if init not in ("random", "pretrained"):
        weights = load_encoder(init).backbone.state_dict()
        try:
            method.backbone.load_state_dict(weights)
        except RuntimeError as error:
            raise ConfigError(f"init = {init!r} does not fit backbone {config.network.backbone!r}: {error}") from error
    return method.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _untrained(config: Config, store: ImageStore, device: torch.device) -> Method:
    """The network as training found it, in eval mode."""
    method = _build(config, device)
    settle_batchnorm(method, store, preprocess_of(config), device)
    return method


def _take_up(training: Training, run: RunDir, reporter: Reporter, precision: str) -> None:
    state, problems = run.newest_checkpoint()
    for problem in problems:
        reporter.warn(f"passed over: {problem}")
    if state is None:
        return
    if state["fingerprint"] != training.loader.store.fingerprint():
        raise CheckpointError(
            f"the run in {run.path} was trained on other images than these {len(training.loader.store)}: resume with "
            "the same data, or begin another run."
        )
    if state["precision"] != precision:
        reporter.warn(f"the run was trained in {state['precision']} so far and goes on in {precision}.")
    training.load_state(state)
    reporter.say(f"Resumed at step {training.progress.step} of {training.total_steps}.")


def _introduce(config: Config, splits: Splits, loader: Loader, training: Training, reporter: Reporter) -> None:
    o, store = config.objective, loader.store
    where = "held in memory" if store.stacked is not None or store.decoded is not None else "decoded every epoch"
    labels = (
        f"{len(store.source.class_names)} classes, for monitoring only" if store.source.class_names else "no labels"
    )
    num_weights = sum(p.numel() for p in training.method.backbone.parameters())
    predictor = "" if config.network.predictor else ", no predictor"
    reporter.say(f"Data      {splits.name}: {len(store):,} images ({labels}), {where}")
    reporter.say(f"Method    {o.method}, guide {o.guide}, {o.views} views{predictor}")
    reporter.say(
        f"Backbone  {config.network.backbone}, {num_weights / 1e6:.2f} M weights; {config.data.image_size} px views"
    )
    reporter.say(
        f"Training  {training.total_steps:,} steps of {loader.batch_size} images, "
        f"{training.total_steps / loader.steps_per_epoch:.4g} epochs; peak learning rate "
        f"{training.peak_lr:.4g} = {config.optimization.lr:g} x {loader.batch_size} / 256"
    )
    where = f"{training.device}, {training.precision}, seed {config.training.seed}"
    reporter.say(f"Machine   {where}; run folder {training.run_dir.path}")


def _finish(
    config: Config, run: RunDir, training: Training, monitor: Monitor, train_store: ImageStore,
    query_store: ImageStore | None, reporter: Reporter,
) -> None:  # fmt: skip
    """Save the encoder, measure the final table and pronounce the verdict."""
    backbone = training.method.backbone.eval()
    save_encoder(run, backbone, spec_of(config, num_features(backbone)))
    reporter.say("Measuring the trained network, the untrained one and raw pixels ...")
    untrained = _untrained(config, train_store, training.device).backbone
    table = measure_table(config, train_store, query_store, backbone, untrained, training.device)
    final = monitor.measure(training.method)
    verdict = judge(
        final,
        training.progress.untrained,
        scores=table.scores if table else {},
        num_queries=table.num_queries if table else 0,
    )
    skipped = {**train_store.skipped, **(query_store.skipped if query_store else {})}
    progress = training.progress
    run.write_json(
        run.summary_file.name,
        {
            "verdict": verdict.state,
            "verdict_words": verdict.words,
            "steps": progress.step,
            "epochs": progress.step / training.loader.steps_per_epoch,
            "images_seen": progress.images_seen,
            "seconds": round(progress.seconds, 1),
            "seconds_by_phase": {name: round(value, 1) for name, value in progress.time_spent.items()},
            "views_per_second": _views_per_second(training),
            "final": final,
            "untrained": progress.untrained,
            **(_table_entries(table) if table else {"knn": None}),
            "num_images": len(train_store),
            "skipped": [{"name": name, "reason": reason} for name, reason in skipped.items()],
        },
    )


def _views_per_second(training: Training) -> float:
    p = training.progress
    working = p.seconds - p.time_spent["monitoring"]
    return round(p.images_seen * training.config.objective.views / max(working, 1e-9), 1)


def _table_entries(table: Table) -> dict[str, Any]:
    return {
        "knn_top1": table.scores["trained"],
        "knn": table.scores,
        "knn_few_labels": {name: {"mean": m, "std": s} for name, (m, s) in table.few_label_scores.items()},
        "knn_protocol": table.protocol,
        "knn_queries": table.num_queries,
    }
