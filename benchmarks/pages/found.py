"""The results that are there, as templates ask for them: every figure of the pages comes from here."""

import json
import re
import shlex
import statistics
from functools import cached_property
from pathlib import Path

from pages.numbers import LEAST_SEEDS, MINUS, count, from_to, plain, signed, with_std

from stopgrad.report.forest import is_accuracy
from stopgrad.studies.statistics import difference_of

FALLEN = ("collapsed", "partly_collapsed")
NOT_REPEATED = ("--out", "--jobs", "--time-limit-seconds")
"""Of a command: where it ran, not what it computed."""


class Study:
    """The results of one study at one scale, or none: `bool(study)` says which."""

    def __init__(self, name, content=None, cell_dir=None):
        self.name, self.content, self._cell_dir = name, content or {}, cell_dir
        self.arms = {arm["name"]: arm for arm in self.content.get("arms", ())}

    def __bool__(self):
        return bool(self.arms)

    def values(self, arm, figure="knn_top1"):
        """Seed -> value."""
        own = self.arms.get(arm)
        if own is None or figure not in own["figures"]:
            return {}
        return dict(zip(own["seeds"], own["figures"][figure]["values"], strict=True))

    def n(self, arm):
        return len(self.arms[arm]["seeds"]) if arm in self.arms else 0

    def mean(self, arm, figure="knn_top1"):
        """In per cent, or as it is."""
        return _factor(figure) * statistics.fmean(self._known(arm, figure).values())

    def knn(self, arm, *, std=False, figure="knn_top1", digits=1):
        values = self._known(arm, figure).values()
        return with_std(values, _factor(figure), digits) if std else plain(self.mean(arm, figure), digits)

    def linear(self, arm, *, std=False):
        return self.knn(arm, std=std, figure="linear_top1")

    def spread(self, arm):
        """Of projections."""
        return self.knn(arm, figure="projection_std", digits=2)

    def rank(self, arm):
        """Of projections."""
        return self.knn(arm, figure="projection_effective_rank", digits=0)

    def ranks(self, arm):
        """Of projections, of each seed."""
        return [round(value) for value in self._known(arm, "projection_effective_rank").values()]

    def num_fallen(self, arm):
        """Runs that collapsed, in full or in part."""
        return sum(self.arms[arm]["verdicts"].get(state, 0) for state in FALLEN)

    def fallen(self, arm):
        return f"{self.num_fallen(arm)} of {self.n(arm)}"

    def difference(self, arm, rival, figure="knn_top1", other=None):
        """Paired by seed; None where no seed has both. `other`: the study that the rival is of."""
        return difference_of(self.values(arm, figure), (other or self).values(rival, figure))

    def verdict(self, arm, rival, figure="knn_top1", other=None):
        found = self.difference(arm, rival, figure, other)
        return None if found is None else found.verdict

    def points(self, arm, rival, figure="knn_top1", other=None):
        """The difference alone, in points, or as it is."""
        return _factor(figure) * self._found(arm, rival, figure, other).mean

    def diff(self, arm, rival, figure="knn_top1", other=None):
        """−0.5 (−2.8 to +1.7)."""
        return written(self._found(arm, rival, figure, other), figure)

    def linear_diff(self, arm, rival):
        return self.diff(arm, rival, "linear_top1")

    def interval(self, arm, rival, figure="knn_top1"):
        """−2.8 to +1.7."""
        return _interval(self._found(arm, rival, figure, None), _factor(figure))

    def lead(self, arm, rival, figure="knn_top1"):
        """By how much, whichever is ahead: 8.7 (7.3 to 10.1)."""
        found, factor = self._found(arm, rival, figure, None), _factor(figure)
        way = 1 if found.mean >= 0 else -1
        ends = sorted(way * factor * end for end in found.interval) if found.interval else []
        return plain(way * factor * found.mean) + (f" ({plain(ends[0])} to {plain(ends[1])})" if ends else "")

    def by(self, arm, rival, figure="knn_top1"):
        """By how much, whichever is ahead, alone: 8.7."""
        return plain(abs(self.points(arm, rival, figure)))

    def epochs(self, arm):
        return self.arms[arm]["epochs"]

    def batch(self, arm):
        return count(self.arms[arm]["settings"]["batch_size"])

    def steps(self, arm):
        own = self.arms[arm]
        return count(own["passes"] / own["passes_an_image"] / own["settings"]["batch_size"])

    def seeds(self, arm):
        return self.arms[arm]["seeds"]

    @cached_property
    def images(self):
        """How many are trained on."""
        return int(re.search(r"bank of the ([\d,]+) images", self.content["protocol"])[1].replace(",", ""))

    @property
    def pixels(self):
        """k-NN of raw pixels, mean-centred."""
        return plain(100 * next(iter(self.arms.values()))["pixels_knn"])

    @property
    def untrained(self):
        return plain(100 * next(iter(self.arms.values()))["untrained_knn"])

    @property
    def resolution(self):
        return plain(100 * self.content["resolution"])

    def margins(self, *arms):
        """How much nearer the nearest pair is than the next, along the runs: 4% to 17%."""
        found = [point["guide_margin"] for arm in arms for point in self.arms[arm]["curve"] if "guide_margin" in point]
        return f"{plain(100 * min(found), 0)}% to {plain(100 * max(found), 0)}%"

    @property
    def command(self):
        """What repeats it, without where it ran."""
        words, kept = shlex.split(self.content["command"]), []
        while words:
            word = words.pop(0)
            if word in NOT_REPEATED:
                words.pop(0)
            else:
                kept.append(f"{Path(word).name}/" if "/" in word else word)
        return shlex.join(kept)

    @property
    def partial(self):
        c = self.content
        failed = sum(len(arm["failed"]) for arm in c["arms"])
        words = f"Partial: {c['num_done']} of {c['num_cells']} cells" + (f", {failed} failed" if failed else "")
        return "" if c["complete"] else words

    def cell(self, arm, seed):
        """All that is kept of a cell, what is under seal included; None where the results do not name it."""
        key = self.arms[arm].get("cells", {}).get(str(seed))
        return None if key is None else json.loads((self._cell_dir / f"{key}.json").read_text())

    def _known(self, arm, figure):
        values = self.values(arm, figure)
        if not values:
            raise KeyError(f"{self.name} has no {figure} of {arm!r}")
        return values

    def _found(self, arm, rival, figure, other):
        found = self.difference(arm, rival, figure, other)
        if found is None:
            raise KeyError(f"{self.name} has no seed of both {arm!r} and {rival!r}")
        return found


def written(difference, figure="knn_top1", *, mark=False):
    """A difference with its interval; bold, where asked for, if that excludes zero."""
    factor = _factor(figure)
    digits = 1 if factor == 100 else 2
    bold = "**" if mark and difference.verdict in ("better", "worse") else ""
    interval = _interval(difference, factor, digits)
    return f"{bold}{signed(factor * difference.mean, digits)}{bold}" + (f" ({interval})" if interval else "")


def _interval(difference, factor, digits=1):
    if difference.interval is None:
        return ""
    return " to ".join(signed(factor * end, digits) for end in difference.interval)


def _factor(figure):
    return 100 if is_accuracy(figure) else 1


class Runs:
    """Finished runs of a recipe, as benchmarks/collect.py gathers them."""

    def __init__(self, runs):
        self.runs = runs
        self.n = len(runs)

    def only(self, **settings):
        """Those with such settings."""
        return Runs([run for run in self.runs if all(run["settings"][k] == v for k, v in settings.items())])

    def knn(self, variant="trained", *, std=True, few=False):
        kind = "knn_few_labels" if few else "knn"
        found = [run["summary"][kind][variant] for run in self.runs]
        values = [score["mean"] if few else score for score in found]
        if len(set(values)) == 1:
            # Of one run, the deviation over its draws of labels.
            own = f" ± {plain(100 * found[0]['std'])}" if few and std and self.n == 1 else ""
            return plain(100 * values[0]) + own
        return with_std(values, 100) if std else plain(100 * statistics.fmean(values))

    def each(self, variant="trained"):
        return [plain(100 * run["summary"]["knn"][variant]) for run in self.runs]

    def num_above(self, variant, rival, *, few=False):
        """Runs in which one is better than the other."""
        kind = "knn_few_labels" if few else "knn"
        pairs = [(run["summary"][kind][variant], run["summary"][kind][rival]) for run in self.runs]
        return sum((a["mean"] > b["mean"]) if few else a > b for a, b in pairs)

    def summary(self, name, run=0):
        return self.runs[run]["summary"][name]

    def setting(self, name, run=0):
        return self.runs[run]["settings"][name]

    def span(self, name, digits=0):
        return from_to([run["summary"][name] for run in self.runs], digits)

    def mean(self, name, digits=0):
        return with_std([run["summary"][name] for run in self.runs], 1, digits)

    def health(self, name, digits=2):
        """Mean and deviation of a measure at the end; the deviation only where it is seen."""
        values = [run["summary"]["final"][name] for run in self.runs]
        std = statistics.stdev(values) if len(values) > 1 else 0
        return plain(statistics.fmean(values), digits) + (
            f" ± {plain(std, digits)}" if float(f"{std:.{digits}f}") else ""
        )

    def verdicts(self):
        """learnt, 2 of 3; not learnt, 1 of 3."""
        states = [run["summary"]["verdict"] for run in self.runs]
        words = {state: f"{state.replace('_', ' ')}, {states.count(state)} of {self.n}" for state in states}
        return "; ".join(f"**{w}**" if state in FALLEN else w for state, w in sorted(words.items()))

    def shares(self, run=0, digits=0):
        """How a run's time divides: loading, augmentation, network, monitors, in per cent."""
        s = self.runs[run]["summary"]
        return ", ".join(plain(100 * t / s["seconds"], digits) for t in s["seconds_by_phase"].values()) + "%"

    @property
    def protocol(self):
        return self.summary("knn_protocol")

    @property
    def seeds(self):
        return ", ".join(str(run["settings"]["seed"]) for run in self.runs)

    @property
    def machine(self):
        e = self.runs[0]["environment"]
        return f"{e['device']}, Python {e['versions']['python']}, torch {e['versions']['torch']}, {e['precision']}"


class Found:
    """All results in a folder: `benchmarks/results`."""

    def __init__(self, folder):
        self.folder, self.study_dir = Path(folder), Path(folder) / "studies"

    @cached_property
    def names(self):
        """Of all studies that there are results of."""
        return sorted(path.stem for path in self.study_dir.glob("*.json"))

    def study(self, name):
        """One that has to be there."""
        found = self.maybe(name)
        if not found:
            raise KeyError(f"no results of {name} in {self.study_dir}")
        return found

    def maybe(self, name):
        """One that may be there; else one without arms."""
        if name not in self.names:
            return Study(name)
        if name not in self._studies:
            content = json.loads((self.study_dir / f"{name}.json").read_text())
            self._studies[name] = Study(name, content, self.study_dir / "cells")
        return self._studies[name]

    @cached_property
    def _studies(self):
        return {}

    def runs(self, name):
        return Runs(self.raw(name))

    def raw(self, name):
        return json.loads((self.folder / f"{name}.json").read_text())


def enough(difference):
    """Whether there is a verdict."""
    return difference is not None and difference.n >= LEAST_SEEDS


__all__ = ["LEAST_SEEDS", "MINUS", "Found", "Runs", "Study", "enough", "written"]
