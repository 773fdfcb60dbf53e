"""The page of an encoder on images: from both to one HTML file, without training."""

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stopgrad.artifacts.next_steps import steps_of_encoder
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.data.sources import Splits
from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import ConfigError
from stopgrad.evaluate.health import LEAST, Health
from stopgrad.evaluate.shared.holdout import check_seed
from stopgrad.evaluate.shared.prepare import opened
from stopgrad.report.listed import Listed, packed
from stopgrad.report.page import write_page
from stopgrad.report.parts.embedded import MOST_IMAGES, Embedded, embed_splits, open_splits
from stopgrad.report.parts.encoder import groups_shown, health_shown, knn_as_json, knn_shown, measured_health
from stopgrad.report.parts.map import feature_map
from stopgrad.report.parts.neighbours import neighbour_rows
from stopgrad.report.parts.pictures import POINTS, as_script
from stopgrad.report.run import MAX_POINTS, Page, check_out
from stopgrad.reporter import QuietReporter, Reporter
from stopgrad.retrieval.duplicates import Duplicates, check_threshold, duplicates_in
from stopgrad.weights.options import TIMM

THRESHOLD = 0.995
"""Cosine of near-duplicates: for small encoders, and safe for large ones."""
FEWEST_ON_A_MAP = 3
TILE = 108
"""Side of a near-duplicate's picture in pixels: four groups of two stand in a row."""


@dataclass(frozen=True)
class EncoderPage(Page):
    """The page of an encoder that was written, and its figures."""

    encoder: str = ""
    data: str = ""
    num_images: int = 0
    """Images embedded."""
    health: Health | None = None
    """None for too few images."""
    knn: Mapping[str, Any] | None = None
    """`accuracy`, `low` and `high` in 0..1, and `protocol`; None without labels."""
    duplicates: Duplicates | None = None
    """None where features are not finite."""
    skipped: Sequence[Mapping[str, str]] = ()
    """Images that could not be read: `name` and `reason`."""

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        found = self.duplicates
        return {
            **super().as_json(), "encoder": self.encoder, "data": self.data, "num_images": self.num_images,
            "health": None if self.health is None else self.health.as_json(), "knn": self.knn,
            "duplicates": None if found is None else found.as_json(), "skipped": list(self.skipped),
        }  # fmt: skip


def write_encoder_report(
    encoder: str | Path | Encoder, data: Any, *, out: str | Path, points: int = POINTS, duplicates: float = THRESHOLD,
    num_images: int = MOST_IMAGES, seed: int = 0, overwrite: bool = False, device: str = "auto",
    reporter: Reporter | None = None,
) -> EncoderPage:  # fmt: skip
    """Write the page of an encoder on images: health, map, clusters, neighbours, near-duplicates, and k-NN with labels.

    One HTML file that works from disk and fetches nothing. Each image is embedded once, in one pass.

    Args:
        encoder: an encoder, or what `load_encoder` takes.
        data: a data set as `open_images` takes it, `Splits`, or whatever else `Encoder.embed` takes.
        out: the file.
        points: most points on the map, from 10 to 100,000.
        duplicates: the cosine from which on images are near-duplicates, above 0 and at most 1.
        num_images: how many images are embedded, drawn by the seed where there are more.
        seed: of all draws, 0 or more.
        overwrite: replace a file in the way.
        device: as the setting `device`.
        reporter: told of progress.

    Raises:
        ConfigError: a number out of range, a file in the way, or images that are a run.
        DataError: no images there, or none that can be read.
        CheckpointError: no encoder there.
    """
    began, reporter = time.perf_counter(), reporter or QuietReporter()
    path = Path(out).expanduser()
    _check(data, path, points=points, duplicates=duplicates, num_images=num_images, seed=seed, overwrite=overwrite)
    splits = open_splits(data)
    loaded, run = opened(encoder)
    backbone, place = loaded.placed(device)
    embedded = embed_splits(
        loaded, backbone, splits, num_images=num_images, place=place, seed=seed, reporter=reporter
    )  # fmt: skip
    parts: dict[str, Any] = {"health": None, "groups": None, "next_steps": []}
    missing: list[str] = []
    reporter.say("Measuring health ...")
    health = measured_health(loaded, run, embedded, place=place, seed=seed, reporter=reporter)
    if health is None:
        missing.append(f"No health: it takes at least {LEAST} readable images, and there are {len(embedded.bank)}.")
    else:
        parts["health"] = health_shown(health, run)
    found, listed = None, Listed(embedded.images.class_names)
    figures, more = _pictures(run, embedded, points=points, seed=seed, listed=listed, reporter=reporter)
    if embedded.is_finite and embedded.num > 1:
        found = duplicates_in(embedded.as_bank(loaded.name), duplicates, reporter)
        parts["groups"] = groups_shown(found, len(embedded.parts), listed)
    elif not embedded.is_finite:
        missing.append(
            "No map, neighbours, near-duplicates or k-NN: features of some images are NaN or infinite numbers."
        )
    missing += more
    if health is not None and isinstance(encoder, (str, Path)) and isinstance(data, (str, Path)):
        rows = figures["knn"]["rows"] if figures["knn"] else []
        parts["next_steps"] = steps_of_encoder(
            str(encoder), str(data), health.state, image_size=loaded.preprocess.size, on_page=True,
            labelled=bool(rows), beats_pixels=not rows or rows[0]["accuracy"] > rows[1]["accuracy"],
        )  # fmt: skip
    values = {
        **_head(loaded, splits, embedded, given=(encoder, data)), **parts, **figures, "missing": missing,
        **listed.for_page(str(encoder) if isinstance(encoder, (str, Path)) else ""),
        "command": _command(
            encoder, data, out=path, points=points, duplicates=duplicates, images=num_images, seed=seed
        ), "skipped": embedded.skipped, "tile": TILE, "large": 2 * TILE,
    }  # fmt: skip
    write_page(path, "encoder.html", **values)
    return EncoderPage(
        path, path.stat().st_size, round(time.perf_counter() - began, 1), tuple(missing), loaded.name,
        str(embedded.parts), embedded.num, health,
        knn_as_json(figures["knn"]) if figures["knn"] else None, found, embedded.skipped,
    )  # fmt: skip


def _check(
    data: Any, path: Path, *, points: int, duplicates: float, num_images: int, seed: int, overwrite: bool
) -> None:
    """Raise `ConfigError` for what cannot be done, before any work."""
    if not 10 <= points <= MAX_POINTS:
        raise ConfigError(f"points = {points}: must be from 10 to {MAX_POINTS:,}.")
    if num_images < 2:
        raise ConfigError(f"images = {num_images}: must be at least 2.")
    check_threshold(duplicates)
    check_seed(seed)
    check_out(path, overwrite=overwrite)
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written: no permission to write into {path.parent}.")
    other = RunDir(data) if isinstance(data, (str, Path)) and str(data) else None
    if other is not None and other.is_run and (other.encoder_file.is_file() or other.metrics_file.is_file()):
        raise ConfigError(
            f"{data} is a run, and no images: give a folder of images or a parquet file; runs beside each other are "
            "drawn by stopgrad compare."
        )


def _pictures(
    run: RunDir | None, embedded: Embedded, *, points: int, seed: int, listed: Listed, reporter: Reporter
) -> tuple[dict[str, Any], list[str]]:
    """Map, neighbours, k-NN and classes, and what the page does without, and why."""
    empty = {"map": None, "map_words": "", "map_script": None, "neighbours": None, "knn": None, "classes": None}
    if not embedded.is_finite:
        return empty, []
    missing = []
    judged = knn_shown(run, embedded)
    knn, classes, predicted = judged if judged is not None else (None, None, None)
    figures = {**empty, "knn": knn, "classes": classes}
    if embedded.num >= FEWEST_ON_A_MAP:
        reporter.say("Arranging the map ...")
        drawn, words = feature_map(embedded.images, embedded.samples, points, predicted, listed)
        script = as_script(packed(drawn.pop("data"))) if drawn else None
        figures |= {"map": drawn, "map_words": words, "map_script": script}
    figures["neighbours"] = neighbour_rows(
        embedded.images, embedded.tested, embedded.bank, seed=seed, head="Features", listed=listed
    )
    if figures["neighbours"] is None:
        missing.append("No neighbours and no near-duplicates: there is one readable image only.")
    if embedded.images.class_names and knn is None:
        missing.append("No k-NN: it takes two images with a label at least.")
    if embedded.num < FEWEST_ON_A_MAP:
        missing.append(f"No map and no clusters: they take at least {FEWEST_ON_A_MAP} readable images.")
    return figures, missing


def _head(encoder: Encoder, splits: Splits, embedded: Embedded, *, given: tuple[Any, Any]) -> dict[str, Any]:
    """Title and facts."""
    given_encoder, data = given
    p, dim = encoder.preprocess, embedded.bank.features.shape[1]
    total, num, skipped = len(embedded.parts), embedded.num, len(embedded.skipped)
    short = _short(given_encoder) if isinstance(given_encoder, (str, Path)) else encoder.name
    images = _last_parts(data, 2) if isinstance(data, (str, Path)) and str(data) else splits.name
    weights = sum(tensor.numel() for tensor in encoder.backbone.parameters()) / 1e6
    counted = f"{num:,} images" if num == total else f"{num:,} of {total:,} images"
    counted += ", drawn by seed" * (num + skipped < total) + f", {skipped:,} unreadable" * bool(skipped)
    classes = embedded.images.class_names
    facts = [
        encoder.name, counted, f"{len(classes):,} classes" if classes else "no labels", f"{dim:,} features an image",
        f"{weights:.1f} M weights", f"shorter side {p.resize}, centre {p.size} x {p.size} px",
        f"mean {_triple(p.mean)}, std {_triple(p.std)}",
    ]  # fmt: skip
    written = datetime.now().astimezone().isoformat(" ", "seconds")
    return {"title": f"{images}: features of {short}", "facts": facts, "written": written}


def _command(encoder: Any, data: Any, **options: Any) -> str:
    """The command that draws the same page; empty where encoder or images are no paths."""
    if not (isinstance(encoder, (str, Path)) and isinstance(data, (str, Path))):
        return ""
    usual = {"points": POINTS, "duplicates": THRESHOLD, "images": MOST_IMAGES, "seed": 0}
    words = ["stopgrad", "report", str(encoder), str(data)]
    for name, value in options.items():
        if value != usual.get(name):
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def _short(encoder: str | Path) -> str:
    """What to call an encoder in a title, without what is said behind a question mark."""
    plain = str(encoder).partition("?")[0]
    if plain.startswith(TIMM):
        return plain
    return _last_parts(plain, 2 if Path(plain).name == "encoder.safetensors" else 1)


def _last_parts(path: str | Path, num: int) -> str:
    """The end of a path as it was given; of `.` and `..`, of where they lead."""
    given = Path(path).expanduser()
    return "/".join((given if given.name not in ("", "..") else given.resolve()).parts[-num:])


def _triple(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
