"""Checks of a requested run that need no torch, whose import takes seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.data import place
from stopgrad.distributed.rank import current_rank, num_restarts
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.loggers.choice import check_loggers
from stopgrad.weights import options

AUTO = "auto"


def goes_on(out: str | Path, *, resume: bool, overwrite: bool) -> bool:
    """Whether the run in a folder is resumed: where that is asked for, or torchrun starts its processes anew.

    Raises:
        ConfigError: started anew, it would be overwritten.
    """
    if resume or not RunDir(out).is_run:
        return resume
    if not num_restarts():
        # On another machine torchrun may have counted none. Where a run is begun, the first process starts none over.
        return not (current_rank().leads or overwrite)
    if overwrite:
        raise ConfigError(
            f"torchrun has started the processes anew, and --overwrite would delete the run in {out} that was begun: "
            "use --resume, or leave out --overwrite where torchrun may restart."
        )
    return True


def without_auto(given: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The settings without `batch_size = "auto"`, which only a device can resolve; and whether it was there."""
    is_auto = given.get("batch_size") == AUTO
    return {name: value for name, value in given.items() if not (is_auto and name == "batch_size")}, is_auto


def check_request(given: Mapping[str, Any], out: str | Path, *, resume: bool, overwrite: bool) -> RunDir:
    """The run folder, after checking it, the path of the images and that of the initial weights.

    Args:
        given: the settings that the user gave.
        out: the run folder.
        resume, overwrite: whether the run continues, or starts over.

    Raises:
        ConfigError: a folder that is taken or holds no run to resume; a logger that is not installed.
        DataError: no images there.
        CheckpointError: no weights there.
    """
    run = RunDir(out)
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: continue, or start over.")
    if resume and not run.is_run:
        raise ConfigError(f"{run.path} holds no run to resume: it has no config.toml.", topic="resume-refused")
    if not resume and current_rank().leads:
        run.check_free(overwrite=overwrite)
    logger = given.get("logger", ())
    check_loggers([logger] if isinstance(logger, str) else logger)
    if given.get("path"):
        place.check_there(given["path"])
    init = given.get("init", "random")
    if init not in ("random", "pretrained") and not resume:
        try:
            options.check_there(init)
        except (CheckpointError, ConfigError) as error:
            raise type(error)(f"init = {init!r}: {error}") from error
    return run
