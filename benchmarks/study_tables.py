"""Results of studies as tables, in place of what stands between their markers in docs/results.md.

    python benchmarks/study_tables.py benchmarks/results/studies docs/results.md

A marker is a line `<!-- study NAME -->`; what follows up to `<!-- end -->` is made from NAME.json in the folder.
"""

import json
import re
import sys
from pathlib import Path

from stopgrad.report.forest import figure_name, is_accuracy
from stopgrad.report.study import accuracies_of

COLLAPSE = {"collapsed": "**collapsed**", "partly_collapsed": "partly collapsed", "not_collapsed": ""}
MARKED = re.compile(r"(<!-- study (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def percent(figure):
    return f"{100 * figure['mean']:.1f}" + ("" if figure["std"] is None else f" ± {100 * figure['std']:.1f}")


def verdicts(arm):
    found = [f"{COLLAPSE[name]} {count} of {len(arm['seeds'])}" for name, count in arm["verdicts"].items() if
             COLLAPSE[name]]  # fmt: skip
    failed = [f"failed {len(arm['failed'])}"] if arm["failed"] else []
    return ", ".join(found + failed)


def arms_table(results):
    accuracies = accuracies_of(results)
    names = " | ".join(f"{figure_name(key)}, %" for key in accuracies)
    yield f"| arm | n | {names} | spread, rank of projections | passes, millions | seconds | |"
    yield "|---|---|---|---|---|---|" + "---|" * len(accuracies)
    for arm in results["arms"]:
        figures = arm["figures"]
        if not figures:
            yield f"| {arm['words']} | 0 |" + " |" * (3 + len(accuracies)) + f" {verdicts(arm)} |"
            continue
        health = f"{figures['projection_std']['mean']:.2f}, {figures['projection_effective_rank']['mean']:.0f}"
        yield (
            f"| {arm['words']} | {len(arm['seeds'])} | "
            f"{' | '.join(percent(figures[key]) if key in figures else '' for key in accuracies)} | {health} | "
            f"{arm['passes'] / 1e6:.2f} | {arm['seconds']:.0f} | "
            f"{verdicts(arm)} |"
        )


def comparisons_table(results):
    words = {arm["name"]: arm["words"] for arm in results["arms"]}
    rows = {}
    for comparison in results["comparisons"]:
        key = comparison["arm"], comparison["rival"], comparison["question"], comparison["n"]
        rows.setdefault(key, {})[comparison["figure"]] = comparison
    figures = list(dict.fromkeys(c["figure"] for c in results["comparisons"]))
    names = (figure_name(figure) + (", points" if is_accuracy(figure) else "") for figure in figures)
    yield "| difference | n | " + " | ".join(names) + " |"
    yield "|---|---|" + "---|" * len(figures)
    for (arm, rival, question, n), found in rows.items():
        cells = [difference(found[figure], figure) if figure in found else "" for figure in figures]
        yield f"| {words[arm]} minus {words[rival]}: {question} | {n} | " + " | ".join(cells) + " |"


def difference(comparison, figure):
    scale, digits = (100, 1) if is_accuracy(figure) else (1, 2)
    ends = " to ".join(f"{scale * end:+.{digits}f}" for end in comparison["interval"] or ())
    mark = "**" if comparison["verdict"] in ("better", "worse") else ""
    return f"{mark}{scale * comparison['difference']:+.{digits}f}{mark}" + (f" ({ends})" if ends else "")


def section(results):
    complete = "" if results["complete"] else (
        f" **Partial: {results['num_done']} of {results['num_cells']} cells.**"
    )  # fmt: skip
    yield f"```bash\n{results['command']}\n```\n"
    protocols = [results["protocol"], results["linear_protocol"], *results.get("transfer_protocols", {}).values()]
    yield f"{'; '.join(protocols)}. {'; '.join(results['machines'])}.{complete}\n"
    yield from arms_table(results)
    if results["comparisons"]:
        yield ""
        yield from comparisons_table(results)
    if results["resolution"]:
        yield f"\nHalf of the median interval of k-NN: {100 * results['resolution']:.1f} points."


def main():
    folder, page = map(Path, sys.argv[1:])

    def made(found):
        results = json.loads((folder / f"{found[2]}.json").read_text())
        return found[1] + "\n".join(section(results)) + "\n" + found[3]

    page.write_text(MARKED.sub(made, page.read_text()))


if __name__ == "__main__":
    main()
