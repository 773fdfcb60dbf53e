"""A study from its name to its files: the plan, the cells that are missing, the results."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stopgrad.artifacts.files import write_atomically
from stopgrad.data.open import open_images
from stopgrad.errors import ConfigError, DataError, did_you_mean
from stopgrad.hardware import usable_cores
from stopgrad.report.study import draw_study
from stopgrad.reporter import Reporter, SilentReporter
from stopgrad.studies import study_of, transfer
from stopgrad.studies.cells import JUDGES, Cell, CellStore, cells_of, labels_digest, pixels_digest
from stopgrad.studies.process import Machine, run_cells
from stopgrad.studies.results import results_of
from stopgrad.studies.same_images import check_same_images
from stopgrad.studies.scales import Scale, scale_of
from stopgrad.studies.study import Study
from stopgrad.studies.transfer import measure_transfer, names_of


@dataclass(frozen=True)
class Plan:
    """What a study consists of, and what of it is missing."""

    study: Study
    scale: Scale
    cells: Sequence[Cell]
    missing: Sequence[Cell]
    failed: Sequence[Cell]
    """Those that failed before, and are not tried again."""
    stale: int
    """Results of another version among the missing."""
    num_images: int
    """A cell trains on."""
    machine: Machine
    store: CellStore
    data_name: str = ""
    """What the results' file calls the images, where the scale is for any."""
    knows_data: bool = True
    """Whether it was planned with the images available, by which earlier cells are recognised."""

    def seconds_of(self, cell: Cell) -> float:
        """How long a cell is expected to take."""
        return cell.passes(self.num_images) / self.scale.pace + self.scale.overhead

    @property
    def expected_seconds(self) -> float:
        """How long the missing cells are expected to take in all."""
        each = [self.seconds_of(cell) for cell in self.missing]
        return max([sum(each) / self.machine.jobs, *each[-1:]], default=0.0)

    @property
    def results_file(self) -> Path:
        """Where the results go; the page and the figure stand beside it."""
        length = "" if self.scale.epochs == scale_of(self.scale.name).epochs else f"-{self.scale.epochs}-epochs"
        of = f"-{self.data_name}" if self.data_name else ""
        # Not over the results of all arms.
        some = "" if len(self.study.arms) == len(study_of(self.study.name).arms) else "-some"
        judged = "-test" if self.cells[0].images.judged_by == "test" else ""
        return self.store.folder / f"{self.study.name}-{self.scale.name}{of}{length}{some}{judged}.json"


def plan_study(
    name: str, *, scale: str = "digits", seeds: int = 3, first_seed: int = 0, epochs: int = 0, arms: Sequence[str] = (),
    data: str = "", out: Path = Path("studies"), jobs: int = 0, judged_by: str = "held out", retry: bool = False,
    without_data: bool = False,
) -> Plan:  # fmt: skip
    """Plan a study.

    Args:
        name: of the study.
        scale: `digits`, `small`, `long`, `photos` or `full`.
        seeds, first_seed: how many, and the first of them.
        epochs: of an arm of length 1; 0: the scale's.
        arms: only these; empty: all.
        data: the images, as `open_images` takes them.
        out: folder of results, shared by studies.
        jobs: cells side by side; 0: one a core, or one a GPU.
        judged_by: `held out` or `test`.
        retry: whether cells that failed before are missing.
        without_data: plan even where `data` is needed and not given, as if nothing had been run: cells are known by
            their images. Such a plan is to be read, not conducted.

    Raises:
        ConfigError: an unknown study, scale, arm or judge, or no data where some is needed, or some where none is.
        DataError: data that does not exist, too few images, or others than those of the cells that are kept.
    """
    study, size = study_of(name), scale_of(scale)
    if seeds < 1 or first_seed < 0 or jobs < 0 or epochs < 0:
        raise ConfigError(
            f"seeds = {seeds}, first_seed = {first_seed}, jobs = {jobs}, epochs = {epochs}: needs at least 1 seed, and "
            "nothing below 0."
        )
    if judged_by not in JUDGES:
        raise ConfigError(f"judged_by = {judged_by!r} is unknown: {did_you_mean(judged_by, JUDGES)}")
    if not without_data:
        _check_data_given(size, data)
    if data and not size.needs_data:
        raise ConfigError(f"scale {scale!r} has images of its own: leave --data {data!r} out, or take another scale.")
    if study.scales and scale not in study.scales:
        raise ConfigError(f"the study {name!r} is made for scale {' or '.join(study.scales)}, not {scale!r}.")
    if not study.scales and size.base.training.steps:
        raise ConfigError(f"scale {scale!r} starts from weights: it is made for the study 'adapt', not for {name!r}.")
    if epochs and size.base.training.steps:
        raise ConfigError(f"epochs = {epochs}: scale {scale!r} counts in steps; leave it out.")
    if epochs:
        size = replace(size, epochs=epochs)
    study = _only(study, arms)
    store = CellStore(out.expanduser())
    images: dict[str, str] = {}
    if _lacks_data(size, data):
        size = size.for_images(size.data_size)
        num_train = size.num_images or size.data_size
    else:
        size, num_train, images = _fitted(data, size, judged_by)
    cells = cells_of(study, size, range(first_seed, first_seed + seeds), judged_by=judged_by, **images)
    if images:
        check_same_images(cells, store, data, by_name=bool(size.base.training.steps))
    known = {cell.key: store.read(cell) for cell in cells}
    failed = [cell for cell in cells if "error" in (known[cell.key] or {})]
    # Two arms may be one at a length this short: their cell is run once.
    wanted = {cell.key: cell for cell in cells if known[cell.key] is None or (retry and cell in failed)}
    missing = list(wanted.values())
    held = 0 if judged_by == "test" else round(size.num_held_out)
    return Plan(
        study, size, cells, missing, [] if retry else failed, sum(store.is_stale(cell) for cell in missing),
        num_train - held, _machine(jobs), store, knows_data=not _lacks_data(size, data),
        data_name=images.get("name", "") if size.base.training.steps else "",
    )  # fmt: skip


def conduct(
    plan: Plan,
    data: str = "",
    *,
    command: str = "",
    to: Sequence[str] = (),
    time_limit_seconds: float = 0.0,
    reporter: Reporter | None = None,
) -> tuple[dict[str, Any], int]:
    """Run what is missing, and write results (JSON), page and figure.

    Args:
        plan: what to run.
        data: as for `plan_study`.
        command: what the files say they were made by.
        to: for the study `transfer`: labelled data sets, as `open_images` takes them.
        time_limit_seconds: stop after so long, everything saved; 0: no limit.
        reporter: told of every cell.

    Returns:
        The results, and how many of all cells have failed, now or before.

    Raises:
        Interrupted: by Ctrl-C, SIGTERM or the time limit; the files say how far it came.
        ConfigError: no data, no sets to transfer to, sets where none are wanted, or a time limit below 0.
        DataError: a set that does not exist, or has no labels.
    """
    reporter = reporter or SilentReporter()
    _check_data_given(plan.scale, data)
    # Written so that NaN fails too.
    if not time_limit_seconds >= 0:
        raise ConfigError(f"time_limit_seconds = {time_limit_seconds:g}: must be at least 0, which is no limit.")
    if to and plan.study.name != transfer.STUDY.name:
        raise ConfigError(f"the study {plan.study.name!r} transfers to nothing: leave --to out.")
    sets = names_of(to) if plan.study.name == transfer.STUDY.name else {}

    def results_now() -> dict[str, Any]:
        found = results_of(plan.study, plan.scale, plan.cells, plan.store, transferred_to=list(sets))
        return {**found, "command": command}

    began = time.monotonic()
    plan.store.folder.mkdir(parents=True, exist_ok=True)
    try:
        if plan.missing:
            run_cells(
                plan.missing, plan.store, data, plan.machine, reporter, time_limit_seconds=time_limit_seconds,
                when_done=lambda: _write(plan.results_file, results_now()),
            )  # fmt: skip
        left = began + time_limit_seconds - time.monotonic() if time_limit_seconds else 0.0
        measure_transfer(plan.cells, plan.store, sets, reporter, time_limit_seconds=left)
    finally:
        results = results_now()
        _write(plan.results_file, results)
        draw_study(results, plan.results_file.with_suffix(".html"), plan.results_file.with_suffix(".svg"))
    return results, sum(len(arm["failed"]) for arm in results["arms"])


def _write(path: Path, results: Mapping[str, Any]) -> None:
    text = json.dumps(results, indent=1) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _only(study: Study, names: Sequence[str]) -> Study:
    known = [arm.name for arm in study.arms]
    for name in names:
        if name not in known:
            raise ConfigError(f"study {study.name!r} has no arm {name!r}: {did_you_mean(name, known)}")
    if not names:
        return study
    arms = [arm for arm in study.arms if arm.name in names]
    comparisons = [c for c in study.comparisons if c.arm in names and c.rival in names]
    return replace(study, arms=arms, comparisons=comparisons)


def _lacks_data(scale: Scale, data: str) -> bool:
    return bool(scale.needs_data) and not data


def _check_data_given(scale: Scale, data: str) -> None:
    if _lacks_data(scale, data):
        raise ConfigError(f"scale {scale.name!r} needs {scale.needs_data}: give --data, its folder or parquet files.")


def _fitted(data: str, scale: Scale, judged_by: str) -> tuple[Scale, int, dict[str, str]]:
    """The scale for the images there are, how many it uses, and what tells them from others, but for its own."""
    splits = open_images(data)
    train, there = splits.train, len(splits.train)
    if len(train.class_names) < 2:
        raise DataError(f"{data!r} has no labels to judge features by.")
    if judged_by == "test" and splits.test is None:
        raise DataError(f"{data!r} has no test images to be judged by.")
    scale = scale.for_images(there)
    if scale.num_images > there or scale.num_held_out >= there:
        raise DataError(
            f"{data!r} has {there:,} training images: scale {scale.name!r} needs "
            f"{max(scale.num_images, round(scale.num_held_out) + 1):,}."
        )
    num = scale.num_images or there
    if not scale.needs_data:
        return scale, num, {}
    name = Path(data).expanduser().resolve().name
    return scale, num, {"labels": labels_digest(train), "pixels": pixels_digest(train), "name": name}


def _machine(jobs: int) -> Machine:
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Machine(jobs or devices or usable_cores(), devices)
