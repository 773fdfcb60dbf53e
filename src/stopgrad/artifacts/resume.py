"""Going on from a checkpoint, and processes that would not train the same run."""

from typing import Any

import torch

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.distributed.group import check_same
from stopgrad.distributed.rank import Rank
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.hardware import choose_statistics
from stopgrad.removed import without_removed
from stopgrad.reporter import Reporter
from stopgrad.settings import GROUPED_METHODS, Training
from stopgrad.sharing import num_groups

# Settings that may differ when a run is resumed: they change where it runs and what is watched, not what it computes.
# The number of processes and what each sees may too, and what that changes is said.
FREE_ON_RESUME = frozenset(
    {"path", "workers", "strict", "cache", "cache_gb", "shard_cache_gb", "device", "devices", "batch_statistics",
     "batch_groups", "compile", "checkpoint_every_steps", "checkpoint_keep", "log_every_steps", "time_limit_seconds",
     "hang_seconds", "monitor_every_epochs", "monitor_images", "knn_k", "knn_temperature", "baselines", "final_images",
     "logger", "report"}
)  # fmt: skip
# Settings in which the processes of one run may differ: each machine has its own places.
OWN_OF_A_PROCESS = frozenset(
    {"path", "workers", "cache", "cache_gb", "shard_cache_gb", "memory_gb", "device", "logger"}
)


def check_same_config(before: Config, after: Config, where: str) -> None:
    """Raise `CheckpointError` if two configs differ in what a run computes."""
    old, new = before.flat(), after.flat()
    changed = [name for name in old if old[name] != new[name] and name not in FREE_ON_RESUME]
    if changed:
        list_of = ", ".join(f"{name} = {old[name]!r} there, {new[name]!r} now" for name in changed)
        raise CheckpointError(
            f"{where} is of another config: {list_of}. Resume without, or start another run.", topic="resume-refused"
        )


def check_same_command(config: Config, rank: Rank, device: torch.device, *, precision: str, resume: bool) -> None:
    """Raise `ConfigError` where the processes of a run were started with other settings; each says the same."""
    settings = {name: value for name, value in config.flat().items() if name not in OWN_OF_A_PROCESS}
    t = config.training
    chosen = {
        "precision": precision, "batch_statistics": choose_statistics(t.batch_statistics, device, t.batch_groups),
        "kind of device": device.type, "resume": resume,
    }  # fmt: skip
    check_same({**settings, **chosen}, rank, ConfigError, "Start all with the same command and config.")


def checked_state(
    run: RunDir, config: Config, rank: Rank, reporter: Reporter, *, fingerprint: str, batch_size: int, statistics: str,
    precision: str,
) -> dict[str, Any] | None:  # fmt: skip
    """The newest checkpoint, if there is one and training may go on from it; what changes by that is warned of.

    Args:
        run, config, rank, reporter: the run's.
        fingerprint, batch_size, statistics, precision: of the images, of a step, and of how it is computed, as the run
            would go on.

    Raises:
        CheckpointError: none can be read, or it is of another config, of other images or of other batches.
    """
    state, problems = run.newest_checkpoint()
    for problem in problems:
        reporter.warn(f"passed over: {problem}")
    if state is None and problems:
        raise CheckpointError(
            f"no checkpoint in {run.checkpoint_dir} can be read: start another run, or repair them.",
            topic="damaged-files",
        )
    if state is None:
        return None
    before = Config().replace(**without_removed(state["config"]))
    check_same_config(before, config, f"the checkpoint in {run.path}")
    if state["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"the run in {run.path} was trained on other images than these: resume with the same data, or start "
            "another run.",
            topic="resume-refused",
        )
    # A batch of all images may not divide among the processes; then it is smaller, and an epoch has other steps.
    if state["batch_size"] != batch_size:
        raise CheckpointError(
            f"the run in {run.path} has steps of {state['batch_size']} images, which do not divide among {rank.world} "
            f"processes: resume with as many as before ({before.training.devices}).",
            topic="resume-refused",
        )
    _say_what_changes(before, state.get("statistics"), config, rank.world, statistics, reporter)
    if state["precision"] != precision:
        reporter.warn(f"the run was trained in {state['precision']} so far and continues in {precision}.")
    return state


def _say_what_changes(
    config_before: Config, kind_before: str | None, config: Config, now: int, kind: str, reporter: Reporter
) -> None:
    """Warn where a run goes on with another number of processes, or with batches in other groups."""
    before, num_before = config_before.training, config_before.training.devices or now
    # A checkpoint of an earlier version does not say what several processes saw.
    is_known = num_before == 1 or kind_before is not None
    groups_before = num_groups(before, num_before, kind_before or "local")
    groups = num_groups(config.training, now, kind)
    exact = is_known and groups_before == groups
    if num_before == now and (exact or not is_known):
        return
    if exact:
        words = "a step computes the same to rounding."
        if groups == 1:
            words += " (What draws inside the network, such as dropout, draws otherwise.)"
    else:
        words = (
            "BatchNorm, partners and negatives are of other groups of images from here on, which is another "
            "training. Images are neither skipped nor repeated."
        )
        repeats = config.objective.method in GROUPED_METHODS and groups_before % now == 0
        if is_known and repeats and groups_before > now:
            words += f" With batch_groups = {groups_before} it goes on exactly."
    reporter.warn(
        f"the run was trained by {_processes(before, num_before, kind_before)} and goes on with "
        f"{_processes(config.training, now, kind)}: {words}"
    )


def _processes(t: Training, num: int, kind: str | None) -> str:
    if kind != "global" and t.batch_groups > num:
        return f"{num} process{'es' if num > 1 else ''} (batch_groups {t.batch_groups})"
    return "1 process" if num == 1 else f"{num} processes (batch_statistics {kind or 'unknown'})"
