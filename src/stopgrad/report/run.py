"""The page of a run: from its folder to one HTML file."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stopgrad.artifacts.names import start_name
from stopgrad.artifacts.next_steps import steps_of_run
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config, to_toml
from stopgrad.data.shards.place import without_query
from stopgrad.data.sources import ImageSource
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.report.listed import packed
from stopgrad.report.page import packed_plotly, write_page
from stopgrad.report.parts.curves import run_curves
from stopgrad.report.parts.images import RunImages, open_run_images
from stopgrad.report.parts.pictures import POINTS, as_script, features_shown, views_shown
from stopgrad.report.parts.progress import standing_of
from stopgrad.report.parts.tables import class_results, evaluation_rows, knn_table
from stopgrad.reporter import QuietReporter, Reporter

MAX_POINTS = 100_000
REFRESH_SECONDS = 60


@dataclass(frozen=True)
class Page:
    """A page that was written."""

    path: Path
    num_bytes: int
    seconds: float
    missing: tuple[str, ...] = ()
    """What the page does without, and why."""

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"page": str(self.path), "bytes": self.num_bytes, "seconds": self.seconds, "missing": list(self.missing)}


def write_report(
    run: str | Path, data: str | Path | ImageSource | None = None, *, out: str | Path | None = None,
    points: int = POINTS, overwrite: bool = False, device: str = "auto", reporter: Reporter | None = None,
) -> Page:  # fmt: skip
    """Write the page of a run, finished or not: one HTML file that works from disk and fetches nothing.

    Args:
        run: the run folder.
        data: the run's images, if they are no longer where its config says.
        out: the file; None: RUN/report.html, which is always written anew.
        points: most points on the map of the features, from 10 to 100,000.
        overwrite: replace another file in the way.
        device: as the setting `device`.
        reporter: told of progress.

    Raises:
        ConfigError: no run there, or a file in the way.
        DataError: `data` was given and does not exist. Without it the page does without pictures and says why.
    """
    reporter = reporter or QuietReporter()
    folder = RunDir(run)
    folder.check_run()
    if not 10 <= points <= MAX_POINTS:
        raise ConfigError(f"points = {points}: must be from 10 to {MAX_POINTS:,}.")
    path = folder.report_file if out is None else Path(out).expanduser()
    check_out(path, overwrite=overwrite or path.resolve() == folder.report_file.resolve())
    config = folder.read_config()

    def opened() -> RunImages:
        return open_run_images(folder, config, data)

    if data is not None:
        given = opened()
        return draw_page(folder, config, lambda: given, path=path, points=points, device=device, reporter=reporter)
    return draw_page(folder, config, opened, path=path, points=points, device=device, reporter=reporter)


def check_out(path: Path, *, overwrite: bool) -> None:
    """Raise `ConfigError` for a page's file that cannot be written, or is there already and `overwrite` is not set."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name a file, such as {path / 'page.html'}.")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists: use --overwrite, or another name.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}.")


def draw_page(
    run: RunDir, config: Config, open_images: Callable[[], RunImages], *, path: Path, points: int = POINTS,
    device: str = "auto", reporter: Reporter,
) -> Page:  # fmt: skip
    """Write the whole page; what cannot be drawn is left out, and the page says why.

    Args:
        run, config: the run.
        open_images: gives its images, or raises `ConfigError` or `DataError`.
        path: the file.
        points, device, reporter: as in `write_report`.
    """
    began = time.perf_counter()
    parts: dict[str, Any] = {}
    missing: list[str] = []
    try:
        images = open_images()
    except (DataError, ConfigError) as error:
        missing.append(f"No pictures: {error}")
    else:
        missing += _changed(run, images)
        try:
            encoder = load_encoder(run.path)
            parts |= features_shown(images, encoder, config, points=points, device=device, reporter=reporter)
        except (CheckpointError, DataError) as error:
            missing.append(f"No map and no neighbours: {error}")
        try:
            parts["views"] = views_shown(images, config)
        except (DataError, AssertionError) as error:
            missing.append(f"No sheet of views: {error}")
    values = page_values(run, config)
    if parts.get("map"):
        parts["map_script"] = as_script(packed(parts["map"].pop("data")))
    if "listed" in parts:
        parts |= parts["listed"].for_page(str(run.path))
    if values["classes"] is not None:
        parts.pop("classes", None)
    num_bytes = _write(path, {**values, **parts, "missing": missing})
    return Page(path, num_bytes, round(time.perf_counter() - began, 1), tuple(missing))


def write_progress_page(
    run: RunDir, config: Config, untrained: Mapping[str, Any], *, ended: tuple[str, str] | None = None
) -> None:
    """Write the page of a run in progress, or one that just ended before its time: curves and figures, no pictures.

    Args:
        run, config: the run.
        untrained: the monitor's measurements before the first step.
        ended: state (`stopped`, `failed`) and words.
    """
    values = page_values(run, config, untrained=untrained, ended=ended, is_running=True)
    _write(run.report_file, {**values, "missing": ["Map, neighbours and views come with the end of the run."]})


def page_values(
    run: RunDir, config: Config, *, untrained: Mapping[str, Any] | None = None,
    ended: tuple[str, str] | None = None, is_running: bool | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What the page says without looking at images."""
    summary = None
    if is_running is None and run.summary_file.is_file():
        try:
            summary = run.read_summary()
        except (OSError, ValueError):
            summary = None
    lines, environment, evaluations = run.read_metrics(), run.read_environment(), run.read_evaluations()
    if untrained is None:
        untrained = summary.get("untrained", {}) if summary is not None else _untrained_of(run)
    standing = standing_of(run, config, lines, summary, untrained, ended=ended, is_running=is_running)
    curves = run_curves(lines, untrained, start_name(config))
    return {
        "title": f"{run.path.resolve().name}: {standing.title}", "name": run.path.resolve().name, "standing": standing,
        "facts": _facts(config, summary, environment), "refresh": REFRESH_SECONDS if standing.state == "running" else 0,
        "next_steps": steps_of_run(run, config, standing.state, summary, lines),
        "knn": knn_table(summary), "curves": as_script(curves), "num_charts": len(curves["charts"]) if curves else 0,
        "charts": curves["charts"] if curves else [], "thinned": curves["thinned"] if curves else None,
        "plotly": packed_plotly() if curves else "", "evaluations": evaluation_rows(evaluations),
        "classes": class_results(evaluations), "skipped": (summary or {}).get("skipped", []),
        "config": to_toml(config), "environment": environment, "command": _command(environment),
        "written": datetime.now().astimezone().isoformat(" ", "seconds"), "written_at": time.time(),
        "before": start_name(config), "speed": _speed(summary),
        "map": None, "map_words": "", "map_script": None, "neighbours": None, "views": None,
        "listed": None, "images_script": None,
    }  # fmt: skip


def _write(path: Path, values: Mapping[str, Any]) -> int:
    write_page(path, "report.html", **values)
    return path.stat().st_size


def _facts(config: Config, summary: Mapping[str, Any] | None, environment: Mapping[str, Any]) -> list[str]:
    """The line below the title."""
    data = environment.get("data") or Path(without_query(config.data.path)).name or "scikit-learn's digits"
    images = f", {summary['num_images']:,} images" if summary and "num_images" in summary else ""
    length = f"{config.training.steps:,} steps" if config.training.steps else f"{config.training.epochs:,} epochs"
    return [
        f"{data}{images}", f"recipe {config.recipe or 'none'}", config.method_words,
        f"{config.network.backbone} at {config.data.image_size} px", length, f"seed {config.training.seed}",
    ]  # fmt: skip


def _speed(summary: Mapping[str, Any] | None) -> str:
    if summary is None or "seconds_by_phase" not in summary:
        return ""
    spent = summary["seconds_by_phase"]
    total = sum(spent.values()) or 1.0
    split = ", ".join(f"{name} {value / total:.0%}" for name, value in spent.items())
    minutes = float(summary.get("seconds", total)) / 60
    return f"{summary['views_per_second']:,.0f} views/s; {minutes:,.1f} minutes of training: {split}."


def _command(environment: Mapping[str, Any]) -> str:
    import shlex

    words = environment.get("command")
    return shlex.join(map(str, words)) if isinstance(words, list) else ""


def _untrained_of(run: RunDir) -> dict[str, Any]:
    state, _ = run.newest_checkpoint()
    return {} if state is None else dict(state.get("progress", {}).get("start", {}))


def _changed(run: RunDir, images: RunImages) -> list[str]:
    """A note where the images are no longer as many as were trained on."""
    if not run.summary_file.is_file():
        return []
    summary = run.read_summary()
    then, now = int(summary.get("num_images", 0)), len(images.train)
    # Unreadable ones, which may be called otherwise by now, are still among those opened.
    if then and not then <= now <= then + len(summary.get("skipped", [])):
        return [f"The pictures are of {now:,} images; the run was trained on {then:,}, so they are not the same ones."]
    return []
