"""stopgrad report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cli.shared.console import ConsoleReporter, plain_console, print_json
from stopgrad.cli.shared.encoder_flags import NOTHING, Loading
from stopgrad.cli.shared.summary import print_skipped
from stopgrad.data.place import check_there
from stopgrad.errors import ConfigError

if TYPE_CHECKING:
    from stopgrad.report.run import Page

DUPLICATES, IMAGES, SEED = 0.995, 20_000, 0


def report(
    encoder: str, folder: Annotated[str | None, Parameter(name="DATA")] = None, /, *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None, data: str | None = None, points: int = 2000,
    duplicates: float = DUPLICATES, images: int = IMAGES, seed: int = SEED,
    overwrite: Annotated[bool, Parameter(negative="")] = False, device: str = "auto",
    json: Annotated[bool, Parameter(negative="")] = False, loading: Loading = NOTHING,
) -> None:  # fmt: skip
    """Write a page: of a run, or of any encoder on images. One HTML file that works from disk.

    stopgrad report RUN
    The page of a run: verdict, curves, neighbours, a map of its features.

    stopgrad report ENCODER DATA --out page.html
    Without training: what an encoder makes of images. Map, clusters,
    neighbours, near-duplicates, health, and with labels k-NN accuracy.

    Parameters
    ----------
    encoder
        A run folder, finished or not. With DATA also a checkpoint, an encoder.safetensors, another program's weights,
        or timm:NAME.
    folder
        Images, with classes or without, as for pretrain.
    out
        The file. The file to write. Of a run, without it: RUN/report.html, which is always replaced.
    data
        Of a run: its own images, if they are no longer where its config says.
    points
        Most points on the map, up to 100,000; 2,000 take seconds, 10,000 and more a few minutes.
    duplicates
        With DATA: the cosine from which on images are near-duplicates.
    images
        With DATA: most images, drawn at random by --seed.
    seed
        With DATA: seed of all draws.
    overwrite
        Replace --out if it exists.
    device
        cpu, cuda, cuda:1, mps or auto.
    json
        Print one JSON object on stdout and everything else on stderr.
    """
    if folder is None:
        _check_run(encoder)
        if given := loading.given():
            raise ConfigError(f"report: {given[0]} is of an encoder on images: give them, DATA, behind {encoder}.")
    elif out is None:
        raise ConfigError("report: the page of an encoder on images needs a file: give --out page.html.")
    elif data is not None:
        raise ConfigError(f"report: {folder}, or --data {data}? Give the images once, behind the encoder.")
    if folder is not None:
        encoder = loading.of(encoder)
        check_there(folder)
    with ConsoleReporter(json=json) as reporter:
        page: Page
        if folder is None:
            for flag, value, usual in (
                ("--duplicates", duplicates, DUPLICATES), ("--images", images, IMAGES), ("--seed", seed, SEED)
            ):  # fmt: skip
                if value != usual:
                    reporter.warn(f"{flag} has no effect on the page of a run.")
            from stopgrad.report.run import write_report

            page = write_report(
                encoder, data, out=out, points=points, overwrite=overwrite, device=device, reporter=reporter
            )
        else:
            from stopgrad.report.encoder import write_encoder_report

            assert out is not None
            page = write_encoder_report(
                encoder, folder, out=out, points=points, duplicates=duplicates, num_images=images,
                seed=seed, overwrite=overwrite, device=device, reporter=reporter,
            )  # fmt: skip
        for text in page.missing:
            reporter.warn(text)
    if json:
        print_json(page.as_json())
        return
    _print_figures(page)
    print(f"Page {page.path} ({page.num_bytes / 1e6:.1f} MB, {page.seconds:.0f} s)")


def _check_run(run: str) -> None:
    """Raise `ConfigError` for what is no run, with the way to the other page."""
    if (Path(run).expanduser() / "config.toml").is_file():
        return
    raise ConfigError(
        f"{run} holds no run: it has no config.toml. For the page of an encoder on images, give them too: stopgrad "
        f"report {run} DATA --out page.html."
    )


def _print_figures(page: "Page") -> None:
    """What an encoder's page found; nothing of a run's, which has its own summary."""
    from stopgrad.report.encoder import EncoderPage

    if not isinstance(page, EncoderPage):
        return
    console = plain_console()
    print_skipped(console, page.skipped)
    if page.health is not None:
        console.print(page.health.words, style="bold")
    if page.knn is not None:
        low, high = 100 * page.knn["low"], 100 * page.knn["high"]
        console.print(f"k-NN {page.knn['accuracy']:.1%} ({low:.1f} to {high:.1f}): {page.knn['protocol']}")
    if page.duplicates is not None:
        found = page.duplicates
        console.print(
            f"Near-duplicates: {found.num_grouped:,} of {found.num_images:,} images in {len(found.groups):,} groups at "
            f"cosine {found.threshold:g}"
        )
        if found.warning is not None:
            plain_console(stderr=True).print(f"warning: {found.warning}", style="yellow")


if TYPE_CHECKING:
    from stopgrad.report.compare import Comparison


def compare(
    *runs: Path, out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False, json: Annotated[bool, Parameter(negative="")] = False,
) -> None:  # fmt: skip
    """Compare runs: settings that differ, figures over seeds, and with --out a page with their curves.

    Parameters
    ----------
    runs
        Run folders, two or more; those that differ in nothing but the seed form a group.
    out
        The page to write, such as compare.html. Without it: the table alone.
    overwrite
        Replace --out if it exists.
    json
        Print one JSON object on stdout and everything else on stderr.
    """
    if len(runs) < 2:
        raise ConfigError(f"{len(runs)} run to compare: needs at least 2.")
    for folder in runs:
        RunDir(folder).check_run()
    from stopgrad.report.compare import compare as compared

    found = compared(runs, out=out, overwrite=overwrite)
    errors = plain_console(stderr=True)
    for text in found.warnings:
        errors.print(f"warning: {text}", markup=False, style="yellow")
    if json:
        print_json(found.as_json())
    else:
        _print(found)


def _print(found: "Comparison") -> None:
    # Wide enough for the tables: figures cut short would be worse than lines that wrap.
    console = plain_console(width=50 + 40 * len(found.groups))
    names = [group.name for group in found.groups]
    for letter, group in zip(_letters(len(names)), found.groups, strict=True):
        console.print(
            f"{letter}  {group.name}: {', '.join(str(run.path) for run in group.runs)}", markup=False, style="bold"
        )
    if found.groups[0].settings:
        table = _table("setting", _letters(len(names)), "left")
        for setting in found.groups[0].settings:
            table.add_row(setting, *(str(group.settings[setting]) or "-" for group in found.groups))
        console.print("\nSettings that differ")
        console.print(table)
    if found.figures:
        letters = _letters(len(names))
        table = _table("", [*letters, *(f"{letter} - A, paired" for letter in letters[1:])], "right")
        for row in found.figures:
            own = [_figure(row["groups"].get(name)) for name in names]
            table.add_row(row["name"], *own, *(_figure(row["paired"].get(name), "+") for name in names[1:]))
        console.print("\nTop-1 accuracy, %: mean ± std over seeds (number of seeds)")
        console.print(table)
    if found.page is not None:
        console.print(f"Page {found.page.path} ({found.page.num_bytes / 1e6:.1f} MB)", markup=False)


def _letters(num: int) -> list[str]:
    return [chr(65 + i) if i < 26 else str(i + 1) for i in range(num)]


def _table(first: str, columns: list[str], justify: Any) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify=justify, no_wrap=True)
    return table


def _figure(entry: Mapping[str, Any] | None, sign: str = "") -> str:
    if entry is None:
        return "-"
    std = "" if entry["std"] is None else f" ± {100 * entry['std']:.1f}"
    return f"{100 * entry['mean']:{sign}.1f}{std} ({entry['num']})"
