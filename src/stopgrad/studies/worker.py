"""The process that runs one cell: trains, measures, and writes the result."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from stopgrad.artifacts.files import checkpoints_in
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.data.sources import ImageSource, Splits, Subset
from stopgrad.distributed.launch import answer
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.evaluate.few_label import evaluate_few_label
from stopgrad.evaluate.knn import evaluate_knn
from stopgrad.evaluate.linear import evaluate_linear
from stopgrad.hardware import share_cores
from stopgrad.metrics.verdict import find_collapse
from stopgrad.reporter import Reporter
from stopgrad.studies.cells import Images, passes_an_image
from stopgrad.train.pretrain import Run, pretrain

CPU_FILE = "cpu.json"
NOTE_SECONDS = 5.0
ORDER_SEED = 2503_09058
CURVE = ("knn_top1", "feature_std", "effective_rank", "projection_std", "projection_effective_rank",
         "guide_balance", "guide_margin")  # fmt: skip


def main() -> NoReturn:
    """Do the request on standard input: `settings`, `data`, `images`, `run`, `begun_on`, `processes`."""
    answer(_work)


def _work(request: dict[str, Any], reporter: Reporter) -> None:
    share_cores(request["processes"])
    config = Config().replace(**request["settings"])
    note = Path(request["begun_on"])
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(request["images"]) + "\n", encoding="utf-8")
    result = run_cell(config, request["data"], Images(**request["images"]), Path(request["run"]), reporter)
    RunDir(request["run"]).write_json("cell.json", result)
    note.unlink(missing_ok=True)


def run_cell(config: Config, data: str, images: Images, run: Path, reporter: Reporter) -> dict[str, Any]:
    """Train and measure; what is known of the cell afterwards.

    Args:
        config: of the run.
        data: as `open_images` takes it.
        images: which of them.
        run: the run folder; an interrupted run is resumed.
        reporter: told of progress.

    Raises:
        DataError: too few images, or none to be judged by.
    """
    splits = splits_of(data, images)
    price = _Price(run, reporter)
    try:
        trained = _train(config, splits, run, price)
    finally:
        cpu_seconds = price.note()
    linear = evaluate_linear(trained.path, splits.train, splits.test, baselines=False, reporter=reporter)
    beside = images.beside.split(",")
    more: dict[str, Any] = {}
    if "test" in beside:
        more |= _sealed(trained.path, config, splits.train, open_images(data).test, reporter)
    if "few-label" in beside:
        more |= _with_few_labels(trained.path, splits, config.training.seed, reporter)
    metrics, folder = trained.metrics, RunDir(trained.path)
    passes = passes_an_image(config)
    curve = [
        {
            "epoch": round(line["epoch"], 4), "passes": line["images_seen"] * passes, "seconds": line["seconds"],
            **{name: line[name] for name in CURVE if name in line},
        }
        for line in folder.read_metrics() if "feature_std" in line
    ]  # fmt: skip
    collapse = find_collapse(metrics["final"], metrics["untrained"])
    return {
        "knn_top1": metrics["knn_top1"], "linear_top1": linear.accuracy, "knn": metrics["knn"],
        **_protocols(config, splits, images), **more, "verdict": collapse.state if collapse else "not_collapsed",
        "final": metrics["final"], "untrained": metrics["untrained"], "epochs": metrics["epochs"],
        "steps": metrics["steps"], "num_images": metrics["num_images"], "passes_an_image": passes,
        "images": asdict(images), "passes": metrics["images_seen"] * passes, "seconds": metrics["seconds"],
        "cpu_seconds": round(cpu_seconds, 1), "views_per_second": metrics["views_per_second"], "curve": curve,
        # Not the command, which is of one study of those that share the cell.
        "environment": {name: value for name, value in folder.read_environment().items() if name != "command"},
    }  # fmt: skip


class _Price:
    """A reporter that notes from time to time how much processor time a run has taken, over all its sittings."""

    def __init__(self, run: Path, reporter: Reporter) -> None:
        self.say, self.warn, self._progress = reporter.say, reporter.warn, reporter.progress
        self._run, self._began = run, time.process_time() - _cpu_seconds_before(run)
        self._noted_at = time.monotonic()

    def progress(self, what: str, done: int, total: int, details: str = "") -> None:
        # Not at the end alone: a process that is killed has none.
        if time.monotonic() - self._noted_at > NOTE_SECONDS:
            self.note()
        self._progress(what, done, total, details)

    def note(self) -> float:
        """Write it down; what it is."""
        self._noted_at = time.monotonic()
        cpu_seconds = time.process_time() - self._began
        if self._run.is_dir():
            RunDir(self._run).write_json(CPU_FILE, {"cpu_seconds": cpu_seconds})
        return cpu_seconds


def _cpu_seconds_before(run: Path) -> float:
    """What earlier sessions took of a resumed run; 0 for a new one."""
    folder = RunDir(run)
    if not checkpoints_in(folder.checkpoint_dir):
        return 0.0
    try:
        return float(folder.read_json(CPU_FILE)["cpu_seconds"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0


def splits_of(data: str, images: Images) -> Splits:
    """The images a cell trains on, and those it is judged by.

    Raises:
        DataError: fewer images than the scale wants, or no test images where they are asked for.
    """
    found = open_images(data)
    order = np.random.Generator(np.random.PCG64(ORDER_SEED)).permutation(len(found.train))
    num = images.num or len(order)
    if num > len(order):
        raise DataError(f"{data!r} has {len(order):,} training images: this scale needs {num:,}.")
    if images.judged_by == "test":
        if found.test is None:
            raise DataError(f"{data!r} has no test images to be judged by.")
        return Splits(found.name, Subset(found.train, sorted(order[:num].tolist())), found.test)
    if not 0 < images.num_held_out < num:
        raise ConfigError(f"{images.num_held_out} of {num} images held out: leaves none to train on, or none to judge.")
    held, used = sorted(order[: images.num_held_out].tolist()), sorted(order[images.num_held_out : num].tolist())
    return Splits(found.name, Subset(found.train, used), Subset(found.train, held))


def _sealed(
    run: Path, config: Config, train: ImageSource, test: ImageSource | None, reporter: Reporter
) -> dict[str, Any]:  # fmt: skip
    """The test images' verdict on the encoder as it is, kept for the end of a study: no choice may rest on it."""
    if test is None:
        return {}
    m = config.monitoring
    knn = evaluate_knn(run, train, test, k=m.knn_k, temperature=m.knn_temperature, baselines=False, reporter=reporter)
    linear = evaluate_linear(run, train, test, baselines=False, reporter=reporter)
    return {
        "test": {"knn_top1": knn.accuracy, "linear_top1": linear.accuracy, "knn_protocol": knn.protocol,
                 "linear_protocol": linear.protocol}
    }  # fmt: skip


def _with_few_labels(run: Path, splits: Splits, seed: int, reporter: Reporter) -> dict[str, Any]:
    found = evaluate_few_label(run, splits.train, splits.test, baselines=False, seed=seed, reporter=reporter)
    by_labels = found.details["by_labels"]["trained"]
    return {"few_label": {amount: one["linear"]["accuracy"] for amount, one in by_labels.items()}}


def _protocols(config: Config, splits: Splits, images: Images) -> dict[str, str]:
    assert splits.test is not None
    num, size = len(splits.train), config.data.image_size
    queries = f"{len(splits.test):,} " + ("test images" if images.judged_by == "test" else "training images held out")
    m = config.monitoring
    return {
        "knn_protocol": f"k-NN, k = {min(m.knn_k, num)}, T = {m.knn_temperature:g}, cosine; bank of the {num:,} images "
        f"trained on, queries {queries}; {size} x {size} pixels",
        "linear_protocol": "logistic regression on frozen features, standardised; L2 chosen on a fifth of each class "
        f"of the {num:,} images trained on, then fitted to all; judged by {queries}",
    }


def _train(config: Config, splits: Splits, run: Path, reporter: Reporter) -> Run:
    settings = {name: value for name, value in config.flat().items() if name != "path"}
    if RunDir(run).is_run:
        try:
            return pretrain(splits, out=run, resume=True, reporter=reporter, **settings)
        except (CheckpointError, ConfigError) as error:
            reporter.warn(f"{run} cannot be resumed and is started over: {error}")
    return pretrain(splits, out=run, overwrite=True, reporter=reporter, **settings)
