"""stopgrad compare."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cli.console import plain_console, print_json
from stopgrad.errors import ConfigError

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
        console.print("\nTop-1 accuracy, %: mean ± deviation over seeds (number of seeds)")
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
    spread = "" if entry["std"] is None else f" ± {100 * entry['std']:.1f}"
    return f"{100 * entry['mean']:{sign}.1f}{spread} ({entry['num']})"
