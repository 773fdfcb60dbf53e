"""stopgrad study."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from stopgrad.cli.shared.console import ConsoleReporter, plain_console, print_json
from stopgrad.errors import StopgradError

if TYPE_CHECKING:
    from stopgrad.studies.conduct import Plan


def study(
    name: str, /, *, scale: str = "digits", data: str = "", seeds: int = 3, first_seed: int = 0, epochs: int = 0,
    arm: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    to: Annotated[tuple[str, ...], Parameter(negative="")] = (), jobs: int = 0,
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("studies"),
    test: Annotated[bool, Parameter(negative="")] = False, retry: Annotated[bool, Parameter(negative="")] = False,
    time_limit_seconds: float = 0.0, plan: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:  # fmt: skip
    """Run a study: many small pretrainings that answer one question, over several seeds.

    What was run before is not run again; what was interrupted resumes. Exits with 1 if a cell failed.

    Parameters
    ----------
    name
        main, no-predictor, batch-size, guide, stability, rivals, transfer, claims, claims-rates, adapt, adapt-rates or
        multicrop.
    scale
        digits: minutes on two cores; small: a part of CIFAR-10, an hour or two; long: CIFAR-10, an hour a cell or more;
        photos: labelled photos, for adapt and adapt-rates; full: CIFAR-10 and ResNet-18, on a GPU.
    data
        CIFAR-10, or photos for the scale photos: a parquet file, a folder of them or of images; digits needs none.
    seeds
        Number of seeds per arm.
    first_seed
        The first of them.
    epochs
        Of an arm of length 1, in place of the scale's.
    arm
        Only this arm; may be given several times. Results then go to NAME-SCALE-some.json.
    to
        For transfer: a labelled data set the networks have not seen; may be given several times.
    jobs
        Cells run in parallel; 0: one per core, or one per GPU.
    out
        Folder of results, shared by studies: NAME-SCALE.json, .html and .svg, and the cells.
    test
        Evaluate on the test images, and train on the held-out images too. For a final comparison with fresh seeds.
    retry
        Run failed cells again.
    time_limit_seconds
        Stop after so long, with everything saved; 0: no limit.
    plan
        Print the cells and how long they should take, and stop. Needs no data; with it, earlier cells are recognised.
    json
        Print one JSON object on stdout and everything else on stderr.
    """
    from stopgrad.studies.conduct import conduct, plan_study

    found = plan_study(
        name, scale=scale, seeds=seeds, first_seed=first_seed, epochs=epochs, arms=arm, data=data, out=out, jobs=jobs,
        judged_by="test" if test else "held out", retry=retry, without_data=plan,
    )  # fmt: skip
    if plan:
        print_json(_plan_json(found)) if json else _print_plan(found)
        return
    command = " ".join(["stopgrad", *map(shlex.quote, sys.argv[1:])])
    with ConsoleReporter(json=json) as reporter:
        if found.stale:
            reporter.warn(f"{found.stale} results are of another version of the program, or damaged: run again.")
        for cell in found.failed:
            reporter.warn(f"{cell.name} failed before and is skipped: --retry runs it again.")
        reporter.say(_plan_words(found))
        results, num_failed = conduct(
            found, data, command=command, to=to, time_limit_seconds=time_limit_seconds, reporter=reporter
        )
        if len(results["machines"]) > 1:
            reporter.warn(f"cells of several machines or versions are mixed: {'; '.join(results['machines'])}.")
    if json:
        print_json(results)
    else:
        _print_results(results)
        print(f"Results {found.results_file}, with .html and .svg beside it")
    if num_failed:
        raise StopgradError(f"{num_failed} of {len(found.cells)} cells failed; the table has their errors.")


def _plan_words(plan: "Plan") -> str:
    return (
        f"{plan.study.title} {len(plan.cells)} cells, {len(plan.missing)} to run, {plan.machine.jobs} side by side: "
        f"about {_minutes(plan.expected_seconds)} if each has {plan.scale.planned_on}"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"


def _plan_json(plan: "Plan") -> dict[str, Any]:
    missing = {cell.key for cell in plan.missing}
    return {
        "study": plan.study.name, "scale": plan.scale.name, "jobs": plan.machine.jobs,
        "expected_seconds": round(plan.expected_seconds),
        "cells": [
            {"arm": c.arm.name, "seed": c.seed, "key": c.key if plan.knows_data else None, "missing": c.key in missing,
             "expected_seconds": round(plan.seconds_of(c)), "epochs": c.config.training.epochs} for c in plan.cells
        ],
    }  # fmt: skip


def _print_plan(plan: "Plan") -> None:
    console = plain_console(width=160)
    console.print(f"{plan.study.title}\n{plan.study.question}\nScale {plan.scale.name}: {plan.scale.words}")
    table = _table(("arm", "left"), ("", "left"), ("epochs", "right"), ("passes an image", "right"),
                   ("seconds a cell", "right"), ("seeds done", "right"))  # fmt: skip
    missing = {cell.key for cell in plan.missing}
    for arm in plan.study.arms:
        own = [cell for cell in plan.cells if cell.arm == arm]
        done = [str(cell.seed) for cell in own if cell.key not in missing]
        passes = own[0].passes(plan.num_images) / plan.num_images / own[0].config.training.epochs
        table.add_row(
            arm.name, arm.words, str(own[0].config.training.epochs), f"{passes:g}", f"{plan.seconds_of(own[0]):.0f}",
            ", ".join(done) or "-",
        )  # fmt: skip
    console.print(table)
    console.print(_plan_words(plan))
    if not plan.knows_data:
        console.print("Without --data: what was run before is not known, and counted as missing.")


def _print_results(results: dict[str, Any]) -> None:
    from stopgrad.report.parts.forest import figure_name, is_accuracy
    from stopgrad.report.study import accuracies_of

    console = plain_console(width=170)
    console.print(f"\n{results['protocol']}")
    accuracies = accuracies_of(results)
    table = _table(("arm", "left"), ("n", "right"), *((f"{figure_name(key)}, %", "right") for key in accuracies),
                   ("std of projections", "right"), ("rank", "right"), ("passes", "right"), ("seconds", "right"),
                   ("verdicts", "left"))  # fmt: skip
    for arm in results["arms"]:
        f = arm["figures"]
        verdicts = ", ".join(f"{name} {count}" for name, count in arm["verdicts"].items())
        failed = f"FAILED {len(arm['failed'])}" if arm["failed"] else ""
        if not f:
            table.add_row(arm["name"], "0", *["-"] * (4 + len(accuracies)), failed)
            continue
        table.add_row(
            arm["name"], str(len(arm["seeds"])), *(_percent(f[key]) if key in f else "-" for key in accuracies),
            f"{f['projection_std']['mean']:.2f}", f"{f['projection_effective_rank']['mean']:.1f}",
            f"{arm['passes']:,.0f}", f"{arm['seconds']:.0f}", ", ".join(filter(None, (verdicts, failed))),
        )  # fmt: skip
    console.print(table)
    figures = dict.fromkeys(c["figure"] for c in results["comparisons"])
    for figure in figures:
        in_points = is_accuracy(figure)
        scale, digits = (100, 1) if in_points else (1, 2)
        title = f"difference in {figure_name(figure)}" + (", points" if in_points else "")
        table = _table((title, "left"), ("", "left"), ("n", "right"), ("mean", "right"), ("95% interval", "right"),
                       ("", "left"))  # fmt: skip
        for c in (c for c in results["comparisons"] if c["figure"] == figure):
            ends = [f"{scale * end:+.{digits}f}" for end in c["interval"] or ()]
            table.add_row(f"{c['arm']} - {c['rival']}", c["question"], str(c["n"]),
                          f"{scale * c['difference']:+.{digits}f}", " to ".join(ends) or "-", c["verdict"])  # fmt: skip
        console.print(table)
    if results["resolution"] is not None:
        console.print(f"Differences in k-NN under {100 * results['resolution']:.1f} points cannot be told here.")


def _percent(figure: dict[str, Any]) -> str:
    std = "" if figure["std"] is None else f" ± {100 * figure['std']:.1f}"
    return f"{100 * figure['mean']:.1f}{std}"


def _table(*columns: tuple[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)
    return table
