"""stopgrad check."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from stopgrad.artifacts.next_steps import NextStep, steps_of_encoder, steps_of_run
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cli.shared.console import ConsoleReporter, plain_console, print_json
from stopgrad.cli.shared.encoder_flags import NOTHING, Loading
from stopgrad.cli.shared.summary import print_more, print_skipped
from stopgrad.data.place import check_there
from stopgrad.errors import CollapsedError

if TYPE_CHECKING:
    from stopgrad.evaluate.health import Health


def check(
    encoder: str, data: str | None = None, /, *, images: int = 2000,
    fail_on_collapse: Annotated[bool, Parameter(negative="")] = False, batch_size: int = 0, device: str = "auto",
    seed: int = 0, json: Annotated[bool, Parameter(negative="")] = False, loading: Loading = NOTHING,
) -> None:  # fmt: skip
    """Say whether a backbone has collapsed, without labels, beside the untrained network.

    Parameters
    ----------
    encoder
        A run folder, a checkpoint, another program's weights or timm:NAME.
    data
        Images, as for pretrain. Without it: the run's own training images.
    images
        How many of them, drawn at random by --seed.
    fail_on_collapse
        Exit with 1 if it has collapsed, also partly, or its features are not finite: for scripts.
    batch_size
        Images a forward pass; 0: chosen for the device.
    device
        cpu, cuda, cuda:1, mps or auto.
    seed
        Of the images drawn, of the views and of the untrained network.
    json
        Print one JSON object on stdout and everything else on stderr.
    """
    encoder = loading.of(encoder)
    if data:
        check_there(data)
    from stopgrad.evaluate.health import check as check_health

    with ConsoleReporter(json=json) as reporter:
        health = check_health(
            encoder, data, num_images=images, batch_size=batch_size, device=device, seed=seed,
            reporter=reporter,
        )  # fmt: skip
    steps = _next_steps(encoder, data, health)
    if json:
        print_json({**health.as_json(), "next": [step.as_json() for step in steps]})
    else:
        print_health(health, steps)
    if fail_on_collapse and health.state != "healthy":
        raise CollapsedError(f"{health.encoder} is {health.state.replace('_', ' ')} (--fail-on-collapse).")


def _next_steps(encoder: str, data: str | None, health: "Health") -> list[NextStep]:
    """What to do next; after a run whose features are healthy, by the run's own verdict."""
    run = RunDir(encoder)
    if not run.is_run:
        return steps_of_encoder(encoder, data or "DATA", health.state, image_size=health.image_size, on_page=False)
    summary = None
    if run.summary_file.is_file():
        with suppress(OSError, ValueError):
            summary = run.read_summary()
    state = str(summary.get("verdict")) if summary is not None and health.state == "healthy" else health.state
    return steps_of_run(run, run.read_config(), state, summary, run.read_metrics())


def print_health(health: "Health", steps: Sequence[NextStep]) -> None:
    """Print the measures, the protocol, the verdict and what to do next."""
    from stopgrad.metrics.measures import MEANINGS, NAMES, figure

    console = plain_console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("this", justify="right")
    if health.untrained is not None:
        table.add_column(health.before_is, justify="right")
    table.add_column("")
    for name, shown in NAMES.items() if health.measures else ():
        cells = [figure(name, side[name]) for side in (health.measures, health.untrained) if side is not None]
        table.add_row(shown, *cells, MEANINGS[name])
    if health.measures:
        console.print(table)
    console.print(health.protocol, markup=False)
    print_skipped(console, health.skipped)
    console.print(f"\n{health.words}", markup=False, style="bold")
    for step in steps:
        console.print(f"  {step.why}", markup=False)
        console.print(f"    {step.command}", markup=False, soft_wrap=True)
    print_more(health.state)
    console.print(f"{health.seconds:.0f} s; {health.encoder}", markup=False)
