"""The tables of a study's page, in Markdown."""

import re

from pages.found import written
from pages.numbers import LEAST_SEEDS, plain, with_std

from stopgrad.report.forest import figure_name, is_accuracy
from stopgrad.report.study import accuracies_of
from stopgrad.studies.statistics import Difference, difference_of

COLLAPSE = {"collapsed": "**collapsed**", "partly_collapsed": "partly collapsed", "not_collapsed": ""}
AT_RATE = re.compile(r"(?P<arm>.+?)_(?:eighth_lr(?P<rate>[\d.]+)|r(?P<share>[\d.]+)_l(?P<length>[\d.]+))")


def table(head, rows):
    """Lines of a table; what is None is left empty."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |"


def arms_table(study):
    accuracies = accuracies_of(study.content)
    head = ["arm", "n", *(f"{figure_name(key)}, %" for key in accuracies), "spread, rank of projections",
            "passes, millions", "seconds", ""]  # fmt: skip
    return table(head, (_arm_row(arm, accuracies) for arm in study.arms.values()))


def _arm_row(arm, accuracies):
    figures = arm["figures"]
    if not figures:
        return [arm["words"], 0, *[None] * (3 + len(accuracies)), _verdicts(arm) or "not run yet"]
    health = f"{figures['projection_std']['mean']:.2f}, {figures['projection_effective_rank']['mean']:.0f}"
    return [
        arm["words"], len(arm["seeds"]),
        *(with_std(figures[key]["values"], 100) if key in figures else None for key in accuracies),
        health, plain(arm["passes"] / 1e6, 2), plain(arm["seconds"], 0), _verdicts(arm),
    ]  # fmt: skip


def _verdicts(arm):
    found = [f"{COLLAPSE[name]} {count} of {len(arm['seeds'])}" for name, count in arm["verdicts"].items() if
             COLLAPSE[name]]  # fmt: skip
    failed = [f"failed {len(arm['failed'])}"] if arm["failed"] else []
    return ", ".join(found + failed)


def comparisons_table(study):
    words = {name: arm["words"] for name, arm in study.arms.items()}
    rows = {}
    for comparison in study.content["comparisons"]:
        key = comparison["arm"], comparison["rival"], comparison["question"], comparison["n"]
        rows.setdefault(key, {})[comparison["figure"]] = comparison
    figures = list(dict.fromkeys(c["figure"] for c in study.content["comparisons"]))
    names = (figure_name(figure) + (", points" if is_accuracy(figure) else "") for figure in figures)
    return table(
        ["difference", "n", *names],
        ([f"{words[arm]} minus {words[rival]}: {question}", n, *(_difference(found, figure) for figure in figures)]
         for (arm, rival, question, n), found in rows.items()),
    )  # fmt: skip


def _difference(found, figure):
    if figure not in found:
        return None
    c = found[figure]
    interval = None if c["interval"] is None else tuple(c["interval"])
    return written(Difference(c["n"], c["difference"], interval), figure, mark=True)


def rates_of(study):
    """Arm of the study that rates are chosen for -> rate (and length) -> the arm here."""
    groups = {}
    for name in study.arms:
        found = AT_RATE.fullmatch(name)
        if found:
            rate = found["rate"] or f"{found['share']}, length {found['length']}"
            groups.setdefault(found["arm"], {})[rate] = name
    return groups


def best_rate(study, arm):
    """The arm here whose rate suits an arm best by k-NN; None until all of its rates are run."""
    rates = list(rates_of(study).get(arm, {}).values())
    if not rates or not all(study.n(name) for name in rates):
        return None
    return max(rates, key=lambda name: study.mean(name))


def rates_table(study):
    """k-NN of each arm at each rate, the highest bold where all are run."""
    groups = rates_of(study)
    rates = list(dict.fromkeys(rate for own in groups.values() for rate in own))

    def row(arm, own):
        best = best_rate(study, arm)
        for rate in rates:
            name = own.get(rate)
            if name is None or not study.n(name):
                yield None
            else:
                yield f"**{study.knn(name)}**" if name == best else study.knn(name)

    words = {arm: study.arms[next(iter(own.values()))]["words"] for arm, own in groups.items()}
    words = {arm: re.split(r", [\d.]+ x learning rate|, an eighth|; backbone rate", w)[0] for arm, w in words.items()}
    return table(["arm", *(f"rate x {rate}" for rate in rates)],
                 ([words[arm], *row(arm, own)] for arm, own in groups.items()))  # fmt: skip


def look_at_test(study, pairs):
    """One look at the test images: the figures under seal, of arms with seeds enough, and their differences.

    Args:
        study: whose cells have them.
        pairs: arms and rivals that a verdict names.

    Returns:
        Two lists of rows: arms, and differences. Empty where nothing may be shown yet.
    """
    arms = [name for name in study.arms if any(name in pair for pair in pairs) and study.n(name) >= LEAST_SEEDS]
    sealed = {}
    for name in arms:
        cells = {seed: study.cell(name, seed) for seed in study.seeds(name)}
        if all(cell and "test" in cell for cell in cells.values()):
            sealed[name] = {seed: cell["test"] for seed, cell in cells.items()}
    rows = [
        [study.arms[name]["words"], len(own), *(with_std([cell[figure] for cell in own.values()], 100)
         for figure in ("knn_top1", "linear_top1"))] for name, own in sealed.items()
    ]  # fmt: skip
    differences = [
        [f"{study.arms[arm]['words']} minus {study.arms[rival]['words']}",
         *(written(_paired(sealed[arm], sealed[rival], figure), figure, mark=True)
           for figure in ("knn_top1", "linear_top1"))]
        for arm, rival in pairs if arm in sealed and rival in sealed
    ]  # fmt: skip
    return rows, differences


def _paired(own, other, figure):
    return difference_of({s: c[figure] for s, c in own.items()}, {s: c[figure] for s, c in other.items()})
