"""Cells, the runs a study is made of, and where their results are kept."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.artifacts.files import write_atomically
from stopgrad.artifacts.resume import FREE_ON_RESUME
from stopgrad.config import Config
from stopgrad.data.sources import ImageSource
from stopgrad.methods import METHODS
from stopgrad.methods.plugins import find_guide
from stopgrad.objective.guides import traits_of
from stopgrad.settings import SIAMESE_METHODS
from stopgrad.studies.scales import Scale
from stopgrad.studies.study import Arm, Study

FORWARD, BACKWARD = 1, 2


def passes_an_image(config: Config) -> float:
    """Encoder passes for one image in one epoch: a forward counts 1, a backward 2, forwards of targets included.

    Those of local views count by their area. Predictor, projector and losses are left out: of a step with a ResNet they
    are a few per cent.
    """
    o = config.objective
    if o.method not in METHODS:
        raise ValueError(f"unknown method {o.method!r}")
    trained = FORWARD + BACKWARD
    passes = _passes_of_views(config, trained)
    if not o.local_views:
        return passes
    return passes + o.local_views * trained * (config.data.local_side / config.data.image_size) ** 2


def _passes_of_views(config: Config, trained: int) -> float:
    o = config.objective
    if o.method not in SIAMESE_METHODS:
        return o.views * (trained + (FORWARD if o.method in ("moco", "dino") else 0))
    traits = traits_of(find_guide(o.guide))
    if o.source_first and traits.sources != "all":
        decides = o.guide_keep < 1 and o.guide_keep_by == "decided"
        num_sources = 1 if traits.sources == "image" or decides else o.views // 2
        return o.views * FORWARD + num_sources * trained * o.guide_keep * traits.keep
    return o.views * (trained + (FORWARD if o.method == "byol" else 0))


VERSION = 1
"""Of how a cell is run and measured: results of another one are not mixed with these."""
JUDGES = ("held out", "test")
NUM_LOOKED_AT = 16
"""Images in a digest of pixels."""
# Where and how watchfully it runs; the k-NN protocol does count.
_NO_PART = FREE_ON_RESUME - {"batch_statistics", "batch_groups", "knn_k", "knn_temperature", "baselines"}

_NEEDED = frozenset(
    {"knn_top1", "linear_top1", "knn", "verdict", "final", "untrained", "passes", "seconds", "cpu_seconds", "curve",
     "environment"}
)  # fmt: skip
"""What a result has that is whole."""


@dataclass(frozen=True)
class Images:
    """Which images a cell trains on and is judged by."""

    num: int
    """Training images used, in a fixed random order; 0: all."""
    num_held_out: int
    """Of these, how many are kept out of training."""
    judged_by: str = "held out"
    """`held out`: by those; `test`: by the test images, and trained on all the rest."""
    labels: str = ""
    """`labels_digest` of all training images there are; empty: the scale's own."""
    beside: str = ""
    """What the frozen encoder is measured by beside, joined by commas. `test`: the test images, kept for the end of the
    study; `few-label`: 1% and 10% of the labels."""
    name: str = ""
    """What the data set is called; no part of a cell's key."""
    pixels: str = ""
    """`pixels_digest` of the training images; no part of a cell's key. Empty: the scale's own."""

    @property
    def part_of_key(self) -> list[Any]:
        """What tells cells apart. What is empty is left out, so that a field that comes later changes no key."""
        return [value for name, value in asdict(self).items() if value != "" and name not in ("name", "pixels")]


@dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    arm: Arm
    seed: int
    config: Config
    images: Images

    @cached_property
    def key(self) -> str:
        """The same for cells that compute the same, whatever study they belong to."""
        # What differs from the defaults alone, so that a setting that comes later changes no key.
        told = json.dumps([part_of_key(self.settings), *self.images.part_of_key], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that differ from the defaults."""
        plain = Config().flat()
        return {name: value for name, value in self.config.flat().items() if value != plain[name]}

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.arm.name}, seed {self.seed}"

    def passes(self, num_images: int) -> float:
        """Encoder passes it takes in all, with so many training images."""
        t = self.config.training
        images = t.steps * t.batch_size if t.steps else t.epochs * num_images
        return passes_an_image(self.config) * images


def part_of_key(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a cell's settings that count in its key."""
    return {name: value for name, value in settings.items() if name not in _NO_PART}


def cells_of(
    study: Study, scale: Scale, seeds: Iterable[int], *, judged_by: str = "held out", labels: str = "", name: str = "",
    pixels: str = "",
) -> list[Cell]:  # fmt: skip
    """The cells of a study: block by block all arms with the first seed, then with the next."""
    beside = _beside(study, judged_by)
    images = Images(scale.num_images, round(scale.num_held_out), judged_by, labels, beside, name, pixels)
    cells = [Cell(arm, seed, _judged(arm.config(scale, seed)), images) for seed in seeds for arm in study.arms]
    return sorted(cells, key=lambda cell: cell.arm.block)


def _beside(study: Study, judged_by: str) -> str:
    return ",".join(what for what in study.beside if (what, judged_by) != ("test", "test"))


def _judged(config: Config) -> Config:
    """Only the arm of the untrained network measures the baselines."""
    return config if config.optimization.lr == 0 else config.replace(baselines=False)


class CellStore:
    """Results of cells in a folder, a JSON file each, and the folders of their runs.

    Args:
        folder: `cells/` and `runs/` are made in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cell_dir, self.run_dir = folder / "cells", folder / "runs"

    def run_of(self, cell: Cell) -> Path:
        """The cell's run folder: another version's run is not gone on with."""
        return self.run_dir / (cell.key if VERSION == 1 else f"{cell.key}-v{VERSION}")

    def lock_of(self, cell: Cell) -> Path:
        """What a command locks while it is at the cell."""
        return self.run_dir / f"{cell.key}.lock"

    def file_of(self, cell: Cell) -> Path:
        """Where the cell's result is kept."""
        return self.cell_dir / f"{cell.key}.json"

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """The cell's result, a failure (`error`) included; None where there is none that can be read.

        A result of another version is none: it is to be computed again.
        """
        try:
            found: Any = json.loads(self.file_of(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("version") != VERSION:
            return None
        return found if "error" in found or found.keys() >= _NEEDED else None

    def begun_on(self, cell: Cell) -> Path:
        """Where a run that has begun notes which images it is trained on; beside its folder, which is made anew."""
        return self.run_dir / f"{self.run_of(cell).name}.images.json"

    def kept(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and content of every file of this version that can be read."""
        for file in sorted(self.cell_dir.glob("*.json")):
            try:
                found: Any = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(found, dict) and found.get("version") == VERSION:
                yield file.stem, found

    def is_stale(self, cell: Cell) -> bool:
        """Whether there is a file, but of another version or damaged."""
        return self.file_of(cell).exists() and self.read(cell) is None

    def write(self, cell: Cell, result: dict[str, Any]) -> None:
        """Keep a result."""
        self.cell_dir.mkdir(parents=True, exist_ok=True)
        content = {"version": VERSION, "arm": cell.arm.name, "seed": cell.seed, "settings": cell.settings, **result}
        text = json.dumps(content, separators=(",", ":")) + "\n"
        write_atomically(self.file_of(cell), lambda path: path.write_text(text, encoding="utf-8"))


def labels_digest(images: ImageSource) -> str:
    """A digest of the labels of images, in order: another data set is told, and another order."""
    labels = np.array([images.label(index) for index in range(len(images))], dtype=np.int64)
    return hashlib.sha256(labels.tobytes()).hexdigest()[:16]


def pixels_digest(images: ImageSource) -> str:
    """A digest of some of the images, evenly spaced: the same pictures stored in another way are told."""
    digest = hashlib.sha256()
    for index in np.linspace(0, len(images) - 1, NUM_LOOKED_AT).astype(int).tolist():
        found = images.read(index)
        digest.update(found if isinstance(found, bytes) else np.ascontiguousarray(found).tobytes())
    return digest.hexdigest()[:16]


def on_device(cell: Cell, **settings: Any) -> Cell:
    """The cell with settings that say where it runs; its key stays."""
    return replace(cell, config=cell.config.replace(**settings))
