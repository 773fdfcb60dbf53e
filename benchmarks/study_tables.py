"""Results of studies as tables for docs/results.md.

python benchmarks/study_tables.py studies/main-digits.json ...
"""

import json
import sys
from pathlib import Path

from stopgrad.report.forest import figure_name, is_accuracy

COLLAPSE = {"collapsed": "**collapsed**", "partly_collapsed": "partly collapsed", "not_collapsed": ""}


def percent(figure):
    return f"{100 * figure['mean']:.1f}" + ("" if figure["std"] is None else f" ± {100 * figure['std']:.1f}")


def verdicts(arm):
    found = [f"{COLLAPSE[name]} {count} of {len(arm['seeds'])}" for name, count in arm["verdicts"].items() if
             COLLAPSE[name]]  # fmt: skip
    failed = [f"failed {len(arm['failed'])}"] if arm["failed"] else []
    return ", ".join(found + failed)


def arms_table(results):
    print("| arm | n | k-NN, % | linear, % | spread, rank of projections | passes, millions | seconds | |")
    print("|---|---|---|---|---|---|---|---|")
    for arm in results["arms"]:
        figures = arm["figures"]
        if not figures:
            print(f"| {arm['words']} | 0 | | | | | | {verdicts(arm)} |")
            continue
        health = f"{figures['projection_std']['mean']:.2f}, {figures['projection_effective_rank']['mean']:.0f}"
        print(
            f"| {arm['words']} | {len(arm['seeds'])} | {percent(figures['knn_top1'])} | "
            f"{percent(figures['linear_top1'])} | {health} | {arm['passes'] / 1e6:.2f} | {arm['seconds']:.0f} | "
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
    print("| difference | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(figures))
    for (arm, rival, question, _), found in rows.items():
        cells = []
        for figure in figures:
            c = found.get(figure)
            if c is None:
                cells.append("")
                continue
            scale, digits = (100, 1) if is_accuracy(figure) else (1, 2)
            ends = " to ".join(f"{scale * end:+.{digits}f}" for end in c["interval"] or ())
            mark = "**" if c["verdict"] in ("better", "worse") else ""
            cells.append(f"{mark}{scale * c['difference']:+.{digits}f}{mark}" + (f" ({ends})" if ends else ""))
        print(f"| {words[arm]} minus {words[rival]}: {question} | " + " | ".join(cells) + " |")


def main():
    for name in sys.argv[1:]:
        results = json.loads(Path(name).read_text())
        environment = results["environment"]
        complete = "" if results["complete"] else f" PARTIAL: {results['num_done']} of {results['num_cells']} cells."
        print(f"### {results['study']}, {results['scale']}\n")
        print(f"`{results['command']}`.{complete} {results['protocol']}. {results['linear_protocol']}.")
        print(f"{environment.get('device')}, torch {environment.get('versions', {}).get('torch')}, "
              f"{environment.get('precision')}.\n")  # fmt: skip
        arms_table(results)
        if results["comparisons"]:
            print()
            comparisons_table(results)
        if results["resolution"]:
            print(f"\nHalf of the median interval: {100 * results['resolution']:.1f} points.\n")


if __name__ == "__main__":
    main()
