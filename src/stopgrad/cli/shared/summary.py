"""The end of a run, as text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stopgrad.artifacts.names import variant_name
from stopgrad.cli.shared.console import plain_console
from stopgrad.errors import more

MAX_SKIPPED_SHOWN = 20
# Verdicts that call for something to be done, and the section that says what.
TOPICS = {"collapsed": "collapsed", "partly_collapsed": "collapsed", "not_learnt": "not-learnt", "worse": "not-learnt"}


def print_summary(path: Path, metrics: Mapping[str, Any]) -> None:
    """Print the table, the verdict, the speed and what was skipped."""
    console = plain_console()
    if metrics.get("knn"):
        console.print(_knn_table(metrics))
        console.print(metrics["knn_protocol"], markup=False)
        if metrics["knn_few_labels"]:
            console.print("10 labels a class: mean and standard deviation of 10 random draws.")
        if metrics.get("knn_is_sample"):
            console.print(f"All images: stopgrad evaluate knn {path}", markup=False)
    print_skipped(console, metrics["skipped"])
    console.print(f"\n{metrics['verdict_words']}", markup=False, style="bold")
    print_more(metrics["verdict"])
    console.print(
        f"{metrics['views_per_second']:,.0f} views/s; time: {_time_split(metrics['seconds_by_phase'])}.", markup=False
    )
    console.print(f"Run folder {path}", markup=False)
    if (path / "report.html").is_file():
        console.print(f"Page {path / 'report.html'}", markup=False)


def print_more(verdict: str) -> None:
    """Name the section about a verdict, where there is one."""
    if verdict in TOPICS:
        plain_console().print(more(TOPICS[verdict]), markup=False)


def print_skipped(console: Console, skipped: Sequence[Mapping[str, str]]) -> None:
    """Count and name the files that could not be read."""
    if not skipped:
        return
    console.print(f"\nSkipped {len(skipped)} unreadable files:")
    for item in skipped[:MAX_SKIPPED_SHOWN]:
        console.print(f"  {item['name']}: {item['reason']}", markup=False)
    if len(skipped) > MAX_SKIPPED_SHOWN:
        console.print(f"  and {len(skipped) - MAX_SKIPPED_SHOWN} more, all of them with --json")
    console.print(more("unreadable-images"), markup=False)


def _knn_table(metrics: Mapping[str, Any]) -> Table:
    few = metrics["knn_few_labels"]
    table = Table(title="k-NN top-1 accuracy, %", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("all labels", justify="right")
    if few:
        table.add_column("10 labels a class", justify="right")
    for key, accuracy in metrics["knn"].items():
        cells = [variant_name(key), f"{100 * accuracy:.1f}"]
        if few:
            cells.append(f"{100 * few[key]['mean']:.1f} ± {100 * few[key]['std']:.1f}")
        table.add_row(*cells)
    return table


def _time_split(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values()) or 1.0
    return ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())
