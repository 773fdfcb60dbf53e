"""A benchmark: every arm once a round, in turn, so that other load on the machine affects all alike."""

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from stopgrad.artifacts.environment import environment
from stopgrad.bench.cases import ARMS, Arm, arms_of
from stopgrad.bench.samples import NUM_PHOTOS, NUM_SMALL, write_photos, write_small_images
from stopgrad.bench.tables import Round, ratios_of, table_of, what_holds_it_back
from stopgrad.data.open import open_images, recipe_for
from stopgrad.distributed.launch import launch
from stopgrad.errors import ConfigError, DataError, Interrupted
from stopgrad.hardware import choose_device, choose_precision, choose_processes
from stopgrad.nets.backbones import build_backbone
from stopgrad.recipes import base_config
from stopgrad.reporter import Reporter, SilentReporter

PHOTO_RECIPE = "photos_small"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 3.0
    """Timed seconds of an arm and round, after a warm-up; training takes two steps at least."""
    batch_size: int = 256
    """Of the rows with peers; the row `training` has its recipe's."""
    images: int = 5120
    """Most images an arm reads."""
    bank: int = 50_000
    """Features in the bank of k-NN; a fifth as many are classified."""


def run_bench(
    data: str | None, *, rows: Sequence[str], size: Size, photos: str | None = None, recipe: str | None = None,
    backbone: str | None = None, image_size: int = 0, peers: bool = False, reporter: Reporter,
) -> dict[str, Any]:  # fmt: skip
    """Measure rows.

    Args:
        data: as for `pretrain`; None: made-up JPEGs of 32 x 32 pixels.
        rows: names in `ROWS`.
        size: how much.
        photos: a folder of photos for the rows of 224 pixels; None: `data` if it is of photos, else made-up ones.
        recipe: settings of the user's own training; None: chosen by the images.
        backbone: another backbone for it, with its standard stem; None: the recipe's.
        image_size: another side of its images; 0: the recipe's.
        peers: whether to run the arms that the rows' first arms are compared with too.
        reporter: who is told of progress.

    Returns:
        What JSON shows: machine, versions and command, the table, the ratios, and what holds training back.

    Raises:
        ConfigError: no such backbone, or an image size that does not fit it.
        DataError: images that are not there, or fewer than two.
    """
    names = arms_of(rows, peers=peers)
    own: dict[str, Any] = {}
    if backbone is not None:
        own |= {"backbone": backbone, "stem": "standard"}
    if image_size:
        own["image_size"] = image_size
    if own and not any(ARMS[name].is_users for name in names):
        reporter.warn("backbone and image_size have no effect: these rows have settings of their own.")
    with tempfile.TemporaryDirectory(prefix="stopgrad-bench-") as folder:
        bench = _Bench(data, photos, recipe, own, size, Path(folder), reporter)
        if any(ARMS[name].on_photos for name in names):
            bench.find_photos()
        hint = size.rounds * (10 + sum(ARMS[name].hint_seconds for name in names))
        reporter.say(f"{len(names)} arms, {size.rounds} rounds: at full size about {_minutes(hint)} on two cores.")
        rounds = bench.run(names)
        device = choose_device("auto")
        return {
            **_with_peers(environment(device, choose_precision("auto", device)), names),
            "memory_gb": bench.memory_gb(),
            "data": {"images": bench.data_words, "photos": bench.photo_words},
            "recipe": bench.recipe,
            "network": bench.network,
            "size": vars(size),
            "rows_asked": list(rows),
            "rows": table_of(rounds, names),
            "ratios": ratios_of(rounds, rows),
            "holds_back": what_holds_it_back(rounds, names),
        }


class _Bench:
    def __init__(
        self, data: str | None, photos: str | None, recipe: str | None, own: Mapping[str, Any], size: Size,
        folder: Path, reporter: Reporter,
    ) -> None:  # fmt: skip
        self.size, self.folder, self.reporter = size, folder, reporter
        self.photo_words: str | None = None
        self.data_words = data or f"{NUM_SMALL:,} made-up JPEGs of 32 x 32 pixels"
        if data is None:
            reporter.say(f"No data given: {self.data_words}.")
            data = str(write_small_images(folder))
        splits = open_images(data)
        if len(splits.train) < 2:
            raise DataError(f"{data!r} holds one image: needs 2 at least.")
        self.data, self.photos = data, photos
        self.images = min(size.images, len(splits.train))
        self.are_photos = recipe_for(splits) == PHOTO_RECIPE
        self.recipe = recipe or recipe_for(splits)
        self.device = choose_device("auto")
        self.own = own
        settings = base_config(self.recipe).replace(**own)
        self.network = {"backbone": settings.network.backbone, "image_size": settings.data.image_size}
        if "backbone" in own:
            try:
                build_backbone(settings.network.backbone, image_size=settings.data.image_size)
            except ValueError as error:
                raise ConfigError(str(error)) from error

    def find_photos(self) -> None:
        """The user's photos, or made-up ones."""
        self.photos = self.photos or (self.data if self.are_photos else None)
        self.photo_words = self.photos or f"{NUM_PHOTOS} made-up JPEGs of 400 x 300 pixels"
        if self.photos is None:
            self.reporter.say(f"No photos given: {self.photo_words}.")
            self.photos = str(write_photos(self.folder))
        open_images(self.photos)

    def run(self, names: Sequence[str]) -> list[Round]:
        """Rounds of the limits and every arm in turn."""
        rounds: list[Round] = []
        start, total = time.monotonic(), self.size.rounds * (1 + len(names))
        for index in range(self.size.rounds):
            measured: Round = {}
            for place, name in enumerate(("limits", *names)):
                arm = ARMS.get(name, Arm("the machine's limits", "limits"))
                self.reporter.progress("measuring", index * (1 + len(names)) + place, total, arm.title)
                measured[name] = self.measure(arm)
            rounds.append(measured)
            if index == 0 and self.size.rounds > 1:
                left = (self.size.rounds - 1) * (time.monotonic() - start)
                self.reporter.say(f"The first of {self.size.rounds} rounds is done; about {_minutes(left)} more.")
        self.reporter.progress("measuring", total, total)
        return rounds

    def measure(self, arm: Arm) -> dict[str, Any]:
        """One arm, once, in fresh processes."""
        batch_size = min(self.size.batch_size, self.images)
        settings = {**(self.own if arm.is_users else {}), **arm.settings}
        if arm.recipe is not None:
            settings.setdefault("batch_size", batch_size)
        config = base_config(arm.recipe or self.recipe).replace(**settings)
        if config.training.batch_size > self.images:
            config = config.replace(batch_size=self.images)
        num = 1
        if arm.work == "training":
            num = choose_processes(config.training.devices, self.device, config.training.batch_size)
        with tempfile.TemporaryDirectory(dir=self.folder) as results:
            request = {
                "batch_size": batch_size,
                "bank": self.size.bank,
                **arm.options,
                "work": arm.work,
                "one_core": arm.one_core,
                "recipe": config.recipe,
                "settings": config.replace(devices=num).flat(),
                "data": self.photos if arm.on_photos else self.data,
                "images": self.size.images,
                "seconds": self.size.seconds,
                "results": results,
            }
            try:
                launch("stopgrad.bench.worker", request, num, SilentReporter())
            except Interrupted as error:
                raise Interrupted("on request before the benchmark was complete.") from error
            parts = [json.loads((Path(results) / f"{index}.json").read_text()) for index in range(num)]
        return {"figures": parts[0]["figures"], "memory_mb": sum(part["memory_mb"] for part in parts)}

    def memory_gb(self) -> float | None:
        """What the machine has."""
        try:
            return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
        except (ValueError, OSError, AttributeError):
            return None


def _with_peers(content: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The environment, with the versions of the packages that the arms compare with."""
    packages = sorted({package for name in names for package in ARMS[name].needs})
    return {**content, "versions": content["versions"] | {package: metadata.version(package) for package in packages}}


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min"
