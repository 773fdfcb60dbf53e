"""Runs beside each other: figures over seeds, and a page with their curves."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stopgrad.artifacts.names import evaluation_name, variant_name
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.errors import ConfigError
from stopgrad.report.groups import Group, RunFigures, grouped, read_run
from stopgrad.report.page import finite, packed_plotly, write_page
from stopgrad.report.parts.curves import CHARTS, COLOURS, X_AXES, describe, series_of, thinned, x_values
from stopgrad.report.parts.pictures import as_script
from stopgrad.report.run import Page, check_out


@dataclass(frozen=True)
class Comparison:
    """What was compared."""

    groups: Sequence[Group]
    figures: Sequence[Mapping[str, Any]]
    """A row for each figure: `name`, `groups` (group -> `mean`, `std`, `num`, `by_seed`), all in 0..1, and `paired`
    (group -> difference to the first group over the seeds that both have: `mean`, `std`, `num`)."""
    warnings: Sequence[str]
    """What forbids comparing some figures."""
    page: Page | None = None

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "groups": [
                {"name": g.name, "settings": g.settings, "seeds": g.seeds, "runs": [str(r.path) for r in g.runs]}
                for g in self.groups
            ],
            "figures": list(self.figures), "warnings": list(self.warnings),
            "page": None if self.page is None else str(self.page.path),
        }  # fmt: skip


def compare(
    runs: Sequence[str | Path], *, out: str | Path | None = None, overwrite: bool = False
) -> Comparison:  # fmt: skip
    """Compare runs: those that differ in nothing but the seed form a group.

    Args:
        runs: two run folders or more, finished or not.
        out: the page to write; None: none is written.
        overwrite: replace `out` if it exists.

    Returns:
        Mean and standard deviation over seeds of every figure for each group, and differences to the first group,
        paired by seed where seeds match.

    Raises:
        ConfigError: fewer than two runs, one twice, a folder without a run, or a file in the way.
    """
    began = time.perf_counter()
    folders = [RunDir(run) for run in runs]
    if len(folders) < 2:
        raise ConfigError(f"{len(folders)} run to compare: needs at least 2.")
    seen: set[Path] = set()
    for folder in folders:
        folder.check_run()
        if folder.path.resolve() in seen:
            raise ConfigError(f"{folder.path} is given twice.")
        seen.add(folder.path.resolve())
    if out is not None:
        check_out(Path(out).expanduser(), overwrite=overwrite)
    read = [read_run(folder) for folder in folders]
    groups = grouped(read)
    found = Comparison(groups, figures_of(groups), warnings_of(read))
    if out is None:
        return found
    path = Path(out).expanduser()
    write_page(path, "compare.html", **_page_values(found))
    page = Page(path, path.stat().st_size, round(time.perf_counter() - began, 1))
    return Comparison(found.groups, found.figures, found.warnings, page)


def figures_of(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Every figure that some run has, over the seeds of each group; differences are paired with the first group."""
    values = [[_figures(run) for run in group.runs] for group in groups]
    names = list(dict.fromkeys(name for runs in values for own in runs for name in own))
    rows = []
    for name in names:
        by_seed = [
            _by_seed((run.seed, own[name]) for run, own in zip(group.runs, runs, strict=True) if name in own)
            for group, runs in zip(groups, values, strict=True)
        ]
        row: dict[str, Any] = {"name": name, "groups": {}, "paired": {}}
        for group, seeds in zip(groups, by_seed, strict=True):
            if seeds:
                row["groups"][group.name] = {
                    **_mean_std(list(seeds.values())),
                    "by_seed": {str(s): v for s, v in seeds.items()},
                }
        for group, seeds in zip(groups[1:], by_seed[1:], strict=True):
            shared = [seed for seed in seeds if seed in by_seed[0]]
            if shared:
                row["paired"][group.name] = _mean_std([seeds[seed] - by_seed[0][seed] for seed in shared])
        rows.append(row)
    return rows


def warnings_of(runs: Sequence[RunFigures]) -> list[str]:
    """What forbids comparing: unfinished runs, and figures measured by different protocols."""
    found = []
    if unfinished := [run.path.name for run in runs if run.summary is None]:
        found.append(f"Not finished, and so without figures: {', '.join(unfinished)}.")
    kinds: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        if run.summary is not None and run.summary.get("knn_protocol"):
            kinds.setdefault("The k-NN at the end", {}).setdefault(run.summary["knn_protocol"], []).append(
                run.path.name
            )
        for name, content in run.evaluations.items():
            # What a run chose on its training images is no part of how it was measured.
            protocol = str(content.get("compared_by") or content.get("protocol", ""))
            kinds.setdefault(f"The evaluation {name!r}", {}).setdefault(protocol, []).append(run.path.name)
    for what, protocols in kinds.items():
        if len(protocols) > 1:
            listed = "; ".join(f"{', '.join(names)}: {protocol}" for protocol, names in protocols.items())
            found.append(
                f"{what} was measured by {len(protocols)} protocols, so these figures do not compare. {listed}."
            )
    return found


def _figures(run: RunFigures) -> dict[str, float]:
    """A run's final figures in 0..1 by what they are called."""
    found: dict[str, Any] = {}
    summary = run.summary or {}
    for key, value in (summary.get("knn") or {}).items():
        found[f"k-NN, {variant_name(key)}"] = value
    for key, entry in (summary.get("knn_few_labels") or {}).items():
        found[f"k-NN with 10 labels a class, {variant_name(key)}"] = entry.get("mean")
    for name, content in run.evaluations.items():
        scores = content.get("scores")
        for key, score in scores.items() if isinstance(scores, Mapping) else ():
            what = evaluation_name(name)
            found[f"evaluation {what}, {variant_name(key)}"] = score.get("accuracy")
    return {name: float(value) for name, value in found.items() if finite(value) is not None}


def _by_seed(pairs: Any) -> dict[int, float]:
    """Seed -> value; of several runs of one seed, their mean."""
    values: dict[int, list[float]] = {}
    for seed, value in pairs:
        values.setdefault(seed, []).append(value)
    return {seed: statistics.fmean(own) for seed, own in sorted(values.items())}


def _mean_std(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample deviation (None of one value) and number."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "num": len(values)}


def _page_values(found: Comparison) -> dict[str, Any]:
    runs = [(place, group, run) for place, group in enumerate(found.groups) for run in group.runs]
    logs = [thinned(run.lines) for _, _, run in runs]
    charts = []
    for chart in CHARTS:
        # Features and projections would be twice as many lines: each has a picture of its own.
        for key, what in chart.series.items():
            series = []
            for number, (place, group, run) in enumerate(runs):
                drawn = series_of(chart, key, logs[number], number)
                if drawn is not None:
                    series.append({
                        **drawn, "name": group.name, "group": group.name, "colour": COLOURS[place % len(COLOURS)],
                        "label": f"{group.name}, seed {run.seed}", "width": 1.4, "level": None,
                    })  # fmt: skip
            if series and key != "relative_alignment":
                title = chart.title + (f": {what}" if len(chart.series) > 1 else "")
                charts.append({**describe(chart, series), "key": key, "title": title})
    curves = {"axes": X_AXES, "runs": [x_values(log) for log in logs], "charts": charts} if charts else None
    differing = list(found.groups[0].settings)
    return {
        "title": f"{len(runs)} runs compared", "groups": found.groups, "colours": COLOURS, "differing": differing,
        "figures": found.figures, "warnings": found.warnings, "curves": as_script(curves), "charts": charts,
        "plotly": packed_plotly() if curves else "", "written": datetime.now().astimezone().isoformat(" ", "seconds"),
        "protocols": sorted({p for _, _, run in runs if (p := (run.summary or {}).get("knn_protocol"))}),
        "verdicts": {str(run.path): (run.summary or {}).get("verdict_words", "not finished") for _, _, run in runs},
    }  # fmt: skip
