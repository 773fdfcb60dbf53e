"""The outcome of an evaluation, as text."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from stopgrad.artifacts.names import variant_name
from stopgrad.cli.shared.console import plain_console
from stopgrad.cli.shared.summary import print_skipped

if TYPE_CHECKING:
    from stopgrad.evaluate.shared.outcome import Outcome

MAX_CLASSES_SHOWN = 20


def print_outcome(outcome: "Outcome") -> None:
    """Print the accuracies, the protocol, the classes and the mistakes."""
    console = plain_console()
    console.print(_few_label_table(outcome) if "by_labels" in outcome.details else _score_table(outcome))
    console.print(outcome.protocol, markup=False)
    if "by_labels" in outcome.details:
        console.print(f"\nLinear, {next(iter(outcome.details['by_labels']['trained']))}, mean of the draws:", end="")
    console.print(_class_table(outcome))
    if len(outcome.per_class) > MAX_CLASSES_SHOWN:
        console.print(f"The {MAX_CLASSES_SHOWN} worst of {len(outcome.per_class)} classes; all of them with --json.")
    if outcome.confusions:
        pairs = [
            f"{c['true']} taken for {c['predicted']} {c['share']:.1%} ({c['num']})" for c in outcome.confusions[:5]
        ]
        console.print(f"\nMost confused: {'; '.join(pairs)}", markup=False)
    print_skipped(console, outcome.skipped)
    console.print(f"{outcome.seconds:.0f} s; {outcome.encoder}", markup=False)


def _score_table(outcome: "Outcome") -> Table:
    by_k = outcome.details.get("by_k", {})
    table = Table(title="top-1 accuracy, %", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    std = any(score.std is not None for score in outcome.scores.values())
    table.add_column("mean ± std" if std else "accuracy", justify="right", no_wrap=True)
    table.add_column("95% interval", justify="right", no_wrap=True)
    paired = outcome.details.get("paired", {})
    if paired:
        table.add_column("trained minus this, paired", justify="right", no_wrap=True)
    others = list(by_k.get("trained", {}))[1:]
    for k in others:
        table.add_column(f"k = {k}", justify="right", no_wrap=True)
    for name, score in outcome.scores.items():
        figure = f"{100 * score.accuracy:.1f}" + (f" ± {100 * score.std:.1f}" if score.std is not None else "")
        cells = [variant_name(name), figure, f"{100 * score.low:.1f} to {100 * score.high:.1f}"]
        if paired:
            cells.append(_paired_words(paired[name]) if name in paired else "")
        table.add_row(*cells, *(f"{100 * by_k[name][k]:.1f}" for k in others))
    return table


def _paired_words(found: Mapping[str, float]) -> str:
    difference, low, high = (100 * found[key] for key in ("difference", "low", "high"))
    p = f"p = {found['p']:.2g}" if found["p"] >= 0.001 else "p < 0.001"
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f}), {p}"


def _few_label_table(outcome: "Outcome") -> Table:
    table = Table(title="top-1 accuracy, %: mean ± std over draws",
                  title_justify="left", box=None, padding=(0, 2, 0, 0))  # fmt: skip
    for name, justify in (("labels", "left"), ("features", "left"), ("linear", "right"),
                          ("95% interval", "right"), ("k-NN", "right")):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    by_labels = outcome.details["by_labels"]
    for amount in by_labels["trained"]:
        for i, (variant, found) in enumerate(by_labels.items()):
            cells = []
            for kind in ("linear", "knn"):
                one = {name: 100 * value for name, value in found[amount][kind].items()}
                cells += [f"{one['accuracy']:.1f} ± {one['std']:.1f}", f"{one['low']:.1f} to {one['high']:.1f}"]
            cells.pop()
            table.add_row("" if i else amount, variant_name(variant), *cells)
    return table


def _class_table(outcome: "Outcome") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("\nclass", no_wrap=True)
    table.add_column("\naccuracy, %", justify="right")
    table.add_column("\nimages", justify="right")
    classes = sorted(outcome.per_class.items(), key=lambda item: item[1]["accuracy"])
    if len(classes) <= MAX_CLASSES_SHOWN:
        classes = list(outcome.per_class.items())
    for name, entry in classes[:MAX_CLASSES_SHOWN]:
        table.add_row(name, f"{100 * entry['accuracy']:.1f}", f"{entry['num']:.0f}")
    return table
