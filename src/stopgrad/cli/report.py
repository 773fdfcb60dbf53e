"""stopgrad report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from stopgrad.cli.console import ConsoleReporter, plain_console, print_json
from stopgrad.cli.loading import NOTHING, Loading
from stopgrad.cli.summary import print_skipped
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
        A folder of images, with classes or without, or parquet.
    out
        The file. Of a run, without it: RUN/report.html, which is always written anew.
    data
        Of a run: its own images, if they are no longer where its config says.
    points
        Most points on the map; 2,000 take seconds, 10,000 a minute or two.
    duplicates
        With DATA: the cosine from which on images are near-duplicates.
    images
        With DATA: most images, drawn at random by --seed.
    seed
        With DATA: of all draws.
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
