"""Finished runs of recipes, as benchmarks/collect.py gathers them."""

import json
import re

from pages.found import plain, table, with_std

NOT_TOLD = {"seed", "path"}
HEAD = ("settings", "n", "trained", "untrained", "raw pixels", "raw pixels, centred", "trained, 10 labels a class",
        "raw pixels, centred, 10 labels", "standard deviation of projections", "their rank",
        "verdict", "views/s", "seconds",
        "loading, augmentation, network, monitors, %")  # fmt: skip


def read_runs(folder):
    """File name without `.json` -> a command, the protocol, the machine and a table, a row for runs of one setting."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        runs = json.loads(file.read_text())
        if isinstance(runs, list) and "summary" in runs[0]:
            found[file.stem] = _described(runs)
    return found


def _described(runs):
    values = [(name, {repr(run["settings"][name]) for run in runs}) for name in runs[0]["settings"]]
    varied = [name for name, own in values if len(own) > 1 and name not in NOT_TOLD]
    groups = {}
    for run in runs:
        words = ", ".join(f"{name} {run['settings'][name]}" for name in varied) or f"recipe {run['recipe']}"
        groups.setdefault(words, []).append(run)
    options = "|".join(["out", "seed", *(name.replace("_", "-") for name in varied)])
    command = re.sub(rf" --(({options}) \S+|overwrite)", "", " ".join(runs[0]["environment"]["command"]))
    # Without images and a recipe, earlier versions trained on the plain digits.
    if runs[0]["recipe"] == "digits" and "--recipe" not in command:
        command += " --recipe digits"
    e = runs[0]["environment"]
    return {
        "command": f"{command} --seed SEED" + "".join(f" --{n.replace('_', '-')} {n.upper()}" for n in varied),
        "protocol": runs[0]["summary"]["knn_protocol"],
        "machine": f"{e['device']}, torch {e['versions']['torch']}, {e['precision']}",
        "table": table(HEAD, [[words, *_row(own)] for words, own in groups.items()]),
    }  # fmt: skip


def _row(runs):
    summaries = [run["summary"] for run in runs]

    def knn(variant):
        return with_std([s["knn"][variant] for s in summaries])

    def few(variant):
        found = [s["knn_few_labels"].get(variant) for s in summaries]
        return "" if None in found else with_std([score["mean"] for score in found])

    verdicts = [s["verdict"].replace("_", " ") for s in summaries]
    shares = [[100 * t / s["seconds"] for t in s["seconds_by_phase"].values()] for s in summaries]
    return [
        len(runs), knn("trained"), knn("untrained"), knn("pixels"), knn("pixels_centred"), few("trained"),
        few("pixels_centred"), with_std([s["final"]["projection_std"] for s in summaries], 1, 2),
        with_std([s["final"]["projection_effective_rank"] for s in summaries], 1, 0),
        "; ".join(f"{v}, {verdicts.count(v)} of {len(runs)}" for v in dict.fromkeys(verdicts)),
        f"{max(s['views_per_second'] for s in summaries):,.0f}", plain(min(s["seconds"] for s in summaries), 0),
        ", ".join(plain(sum(column) / len(column), 0) for column in zip(*shares, strict=True)),
    ]  # fmt: skip
