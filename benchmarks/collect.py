"""Gathers finished runs into one JSON file of results, and prints them with mean and standard deviation over seeds.

    python benchmarks/collect.py RUN [RUN ...] --name NAME

Runs that differ in nothing but the seed form a group. The file holds for each run the settings, versions and machine,
the revision of the program, the command with folders by their last name, and the whole summary.
"""

import argparse
import json
import statistics
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
# What tells the groups of one file apart is shown; these are never it.
NOT_SHOWN = {"seed", "path"}


def read(path: Path) -> dict[str, Any]:
    config = tomllib.loads((path / "config.toml").read_text())
    sections = [section for section in config.values() if isinstance(section, dict)]
    settings = {name: value for section in sections for name, value in section.items()}
    environment = json.loads((path / "environment.json").read_text())
    environment["command"] = ["stopgrad", *(Path(word).name for word in environment["command"][1:])]
    return {
        "settings": {**settings, "path": Path(settings["path"]).name},
        "recipe": config["recipe"],
        "environment": environment,
        "summary": json.loads((path / "summary.json").read_text()),
    }


def cells(run: dict[str, Any]) -> dict[str, float]:
    s = run["summary"]
    few = {f"{name}, 10 labels": score["mean"] for name, score in s.get("knn_few_labels", {}).items()}
    final, before = s["final"], s["untrained"]
    return {
        **{f"k-NN {name}": 100 * score for name, score in (s["knn"] or {}).items()},
        **{f"k-NN {name}": 100 * score for name, score in few.items()},
        "feature spread / untrained": final["feature_std"] / before["feature_std"],
        "feature rank / untrained": final["effective_rank"] / before["effective_rank"],
        "projection spread / untrained": final["projection_std"] / before["projection_std"],
        "projection rank / untrained": final["projection_effective_rank"] / before["projection_effective_rank"],
        "projection rank": final["projection_effective_rank"],
        "views/s": s["views_per_second"],
        "seconds": s["seconds"],
        **{f"share {name}": seconds / s["seconds"] for name, seconds in s["seconds_by_phase"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--name", required=True)
    a = parser.parse_args()
    runs = [read(path) for path in a.runs]
    varied = {
        name
        for name in runs[0]["settings"]
        if len({repr(run["settings"][name]) for run in runs}) > 1 and name not in NOT_SHOWN
    }
    groups: dict[tuple[tuple[str, Any], ...], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        groups[tuple((name, run["settings"][name]) for name in sorted(varied))].append(run)
    for key, members in groups.items():
        print("\n" + (", ".join(f"{name} = {value}" for name, value in key) or runs[0]["recipe"]))
        verdicts = [member["summary"]["verdict"] for member in members]
        print("  seeds", [member["settings"]["seed"] for member in members], "verdicts", verdicts)
        for name in cells(members[0]):
            values = [cells(member)[name] for member in members]
            spread = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
            print(f"  {name:32} {statistics.mean(values):8.4g}{spread}   {[round(v, 3) for v in values]}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{a.name}.json").write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
