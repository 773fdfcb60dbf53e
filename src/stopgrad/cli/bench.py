"""stopgrad bench."""

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from stopgrad.bench.cases import choose_rows
from stopgrad.cli.shared.console import ConsoleReporter, plain_console, print_json
from stopgrad.data.place import check_there
from stopgrad.errors import ConfigError
from stopgrad.recipes import base_config


def bench(
    data: str | None = None, /, *, peers: Annotated[bool, Parameter(negative="")] = False, photos: str | None = None,
    only: str = "", recipe: str | None = None, backbone: str | None = None, image_size: int = 0, rounds: int = 3,
    seconds: float = 3.0, batch_size: int = 256, images: int = 5120, bank: int = 50_000,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:  # fmt: skip
    """Measure what this machine makes of training, beside the machine's own limits.

    Parameters
    ----------
    data
        As for `stopgrad pretrain`; without it, made-up JPEGs of 32 x 32 pixels.
    peers
        Measure Lightly, a plain transcription of the paper's protocol and timm's own loop too (pip install
        "stopgrad[peers]").
    photos
        A folder of photos for the rows of 224 pixels; without it, the data if they are photos, else made-up ones.
    only
        Rows to measure, by name and separated by commas.
    recipe
        Settings of the row `training` and of the parts of a run; without it, chosen by the images.
    backbone
        Another backbone for these rows, by timm's name and as timm builds it; without it, the recipe's.
    image_size
        Another side of the images for these rows; 0: the recipe's.
    rounds
        How often everything is measured; the table shows medians, and the least and the most.
    seconds
        Timed seconds of an arm and round, after a warm-up. Training takes two steps at least.
    batch_size
        Images a step in the rows with peers.
    images
        Most images an arm reads.
    bank
        Features in the bank of the k-NN rows; a fifth as many are classified.
    json
        Print one JSON object on stdout and everything else on stderr.
    """
    for flag, value, least in (
        ("rounds", rounds, 1), ("batch-size", batch_size, 2), ("images", images, 2), ("bank", bank, 5),
        ("image-size", image_size, 0),
    ):  # fmt: skip
        if value < least:
            raise ConfigError(f"--{flag} {value}: must be at least {least}.")
    if not seconds > 0:
        raise ConfigError(f"--seconds {seconds:g}: must be above 0.")
    base_config(recipe)
    rows = choose_rows([name.strip() for name in only.split(",") if name.strip()], peers=peers)
    for place in (data, photos):
        if place:
            check_there(place)
    from stopgrad.bench.run import Size, run_bench

    with ConsoleReporter(json=True) as reporter:
        result = run_bench(
            data, rows=rows, size=Size(rounds, seconds, batch_size, images, bank), photos=photos, recipe=recipe,
            backbone=backbone, image_size=image_size, peers=peers, reporter=reporter,
        )  # fmt: skip
    if json:
        print_json(result)
    else:
        print_table(result)


def print_table(result: Mapping[str, Any]) -> None:
    """Machine, table, ratios, and what holds training back."""
    console = plain_console()
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    console.print(
        f"{result['device']}, {result['cpu_count']} cores, {result['memory_gb']} GB; {versions}\n"
        f"Images: {result['data']['images']}; recipe of the row training: {result['recipe']}, "
        f"{result['network']['backbone']} at {result['network']['image_size']} px. Medians of "
        f"{result['size']['rounds']} rounds, interleaved; in brackets the least to the most.\n",
        markup=False,
    )
    before = None
    for line in result["rows"]:
        if line["title"] != before:
            before = line["title"]
            console.print(before, markup=False, style="bold")
        share = "" if line["share_of_limit"] is None else f"{line['share_of_limit']:.1%} of the {line['limit']}"
        console.print(
            f"  {line['what']:<30}{_number(line['median']):>10} {line['unit']:<15}{_range(line):<24}{share}".rstrip(),
            markup=False,
        )
    if result["ratios"]:
        console.print("\nRatios: the median of the rounds' own", markup=False, style="bold")
    for line in result["ratios"]:
        console.print(
            f"  {line['median']:6.2f} times {_range(line, 2)}  {line['ours']}\n{'':24}over {line['peer']}",
            markup=False,
        )
    if result["holds_back"]:
        console.print(f"\n{result['holds_back']}", markup=False, style="bold")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _range(line: Mapping[str, Any], digits: int | None = None) -> str:
    low, high = ((_number(x) if digits is None else f"{x:.{digits}f}") for x in (line["min"], line["max"]))
    return f"({low} to {high})"
