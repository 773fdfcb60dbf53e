"""stopgrad report."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stopgrad.cli.console import ConsoleReporter, print_json
from stopgrad.errors import ConfigError


def report(
    run: Path, /, *, out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None, data: str | None = None,
    points: int = 2000, overwrite: Annotated[bool, Parameter(negative="")] = False, device: str = "auto",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:  # fmt: skip
    """Write the page of a run: one HTML file with its verdict, curves, neighbours and a map of its features.

    Parameters
    ----------
    run
        A run folder, finished or not.
    out
        The file. Without it: RUN/report.html, which is always written anew.
    data
        The run's images, if they are no longer where its config says.
    points
        Most points on the map; 2,000 take seconds, 10,000 a minute or two.
    overwrite
        Replace --out if it exists.
    device
        cpu, cuda, cuda:1, mps or auto.
    json
        Print one JSON object on stdout and everything else on stderr.
    """
    if not (run.expanduser() / "config.toml").is_file():
        raise ConfigError(f"{run} holds no run: it has no config.toml.")
    from stopgrad.report.run import write_report

    with ConsoleReporter(json=json) as reporter:
        page = write_report(
            run, data, out=out, points=points, overwrite=overwrite, device=device, reporter=reporter
        )  # fmt: skip
        for text in page.missing:
            reporter.warn(text)
    if json:
        print_json({"page": str(page.path), "bytes": page.num_bytes, "seconds": page.seconds,
                    "missing": list(page.missing)})  # fmt: skip
    else:
        print(f"Page {page.path} ({page.num_bytes / 1e6:.1f} MB, {page.seconds:.0f} s)")
