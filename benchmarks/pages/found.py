"""Results of studies as they are kept in benchmarks/results, and how their figures are written."""

import json
import re
import shlex
import statistics
from pathlib import Path

from stopgrad.report.parts.forest import MINUS, figure_name, is_accuracy
from stopgrad.report.study import accuracies_of, partial_words
from stopgrad.studies.results import LEAST_SEEDS, difference_of

FALLEN = {"collapsed": "collapsed", "partly_collapsed": "partly collapsed"}
AT_RATE = re.compile(r"(?P<arm>.+?)_(?:eighth_lr(?P<rate>[\d.]+)|r(?P<share>[\d.]+)_l(?P<length>[\d.]+))")


def plain(value, digits=1):
    """Negative values with a proper minus."""
    return f"{value:.{digits}f}".replace("-", MINUS)


def signed(value, digits=1):
    """A difference; one that rounds to zero has no sign."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def with_std(values, factor=100, digits=1):
    """Mean ± sample deviation; the mean alone of one value, and of values that are all written alike."""
    values = [factor * value for value in values]
    alike = len({plain(value, digits) for value in values}) == 1
    return plain(statistics.fmean(values), digits) + ("" if alike else f" ± {plain(statistics.stdev(values), digits)}")


def written(difference, figure="knn_top1", *, bold=True):
    """A difference and its 95% interval: **+1.5** (+0.8 to +2.2); bold where it excludes zero. None: empty."""
    if difference is None:
        return ""
    factor, digits = (100, 1) if is_accuracy(figure) else (1, 2)
    mark = "**" if bold and difference.verdict in ("better", "worse") else ""
    text = f"{mark}{signed(factor * difference.mean, digits)}{mark}"
    if difference.n < LEAST_SEEDS:
        return f"{text} (n = {difference.n})"
    return f"{text} ({' to '.join(signed(factor * end, digits) for end in difference.interval)})"


def table(head, rows):
    """A table in Markdown; None is an empty cell."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join("" if c is None else str(c) for c in line) + " |" for line in lines)


class Study:
    """Results of one study; of one that was never run, with no arms: `bool(study)` is false then.

    Args:
        name: of its file, without `.json`.
        content: of that file.
        cell_dir: where the cells are.
    """

    def __init__(self, name, content=None, cell_dir=None):
        self.name, self.content = name, content or {}
        self.arms = {arm["name"]: arm for arm in self.content.get("arms", ())}
        for arm in self.arms.values():
            arm["figures"] |= _beside(arm, cell_dir)

    def __bool__(self):
        return bool(self.arms)

    def __getitem__(self, key):
        return self.content[key]

    def n(self, arm):
        """Number of seeds."""
        return len(self.arms[arm]["seeds"]) if arm in self.arms else 0

    def values(self, arm, figure="knn_top1"):
        """Seed -> value."""
        own = self.arms.get(arm)
        if own is None or figure not in own["figures"]:
            return {}
        return dict(zip(own["seeds"], own["figures"][figure]["values"], strict=True))

    def mean(self, arm, figure="knn_top1"):
        """In per cent; None where nothing was run."""
        values = self.values(arm, figure).values()
        return 100 * statistics.fmean(values) if values else None

    def difference(self, arm, rival, figure="knn_top1"):
        """Paired by seed; None where no seed has both."""
        return difference_of(self.values(arm, figure), self.values(rival, figure))

    def fallen(self, arm):
        """Number of runs that collapsed, in full or in part."""
        verdicts = self.arms[arm]["verdicts"] if arm in self.arms else {}
        return sum(verdicts.get(state, 0) for state in FALLEN)

    @property
    def label(self):
        """What tells the pages of a study apart: main, small, 16 epochs, some arms."""
        rest = self.name.removeprefix(f"{self['study']}-{self['scale']}")
        rest = rest.replace("-some", ", some arms").replace("-test", ", judged by the test images")
        return f"{self['study']}, {self['scale']}" + re.sub("^-", ", ", rest).replace("-epochs", " epochs")

    @property
    def partial(self):
        """How much of an unfinished study there is; empty for a whole one."""
        return partial_words(self.content)

    @property
    def command(self):
        """What repeats it, without what says only where it ran."""
        words = re.sub(r" --(out|jobs|time-limit-seconds) \S+", "", self["command"])
        words = [f"{Path(word).name}/" if "/" in word else word for word in shlex.split(words)]
        return re.sub(r"(.{60,100}?) (?=--)", "\\1 \\\\\n    ", shlex.join(words))

    @property
    def notes(self):
        """Protocols and machines."""
        protocols = [self["protocol"], self["linear_protocol"], *self.content.get("transfer_protocols", {}).values()]
        return "\n".join(f"- {note}." for note in [*filter(None, protocols), *self["machines"]])

    @property
    def missing(self):
        """Number of arms of which nothing was run."""
        return sum(not self.n(name) for name in self.arms)

    def arms_table(self):
        """All arms that were run."""
        keys = accuracies_of(self.content)
        head = ["arm", "n", *(f"{figure_name(key)}, %" for key in keys),
                "standard deviation of projections", "their rank",
                "passes, millions", "seconds", ""]  # fmt: skip
        return table(head, [_arm_row(arm, keys) for arm in self.arms.values() if arm["seeds"]])

    def differences_table(self):
        """All comparisons of the study of which some seed has both arms."""
        compared = dict.fromkeys((c["arm"], c["rival"], c["question"]) for c in self["comparisons"])
        figures = dict.fromkeys([*accuracies_of(self.content), *(c["figure"] for c in self["comparisons"])])
        rows = []
        for arm, rival, question in compared:
            found = [self.difference(arm, rival, figure) for figure in figures]
            words = f"{self.arms[arm]['words']} minus {self.arms[rival]['words']}: {question}"
            cells = (written(d, figure) for d, figure in zip(found, figures, strict=True))
            rows.append([words, found[0].n, *cells])
        units = (f"{figure_name(f)}{', points' if is_accuracy(f) else ''}" for f in figures)
        return table(["difference", "n", *units], rows)

    def rates(self):
        """Of a study that chooses rates: arm it chooses for -> rate (and length) -> arm of this study."""
        groups = {}
        for name in self.arms:
            if found := AT_RATE.fullmatch(name):
                rate = found["rate"] or f"{found['share']}, length x {found['length']}"
                groups.setdefault(found["arm"], {})[rate] = name
        return groups

    def best_rate(self, arm):
        """The arm of this study with the rate that suits an arm best by k-NN; None until all of its rates are run."""
        names = list(self.rates().get(arm, {}).values())
        return max(names, key=self.mean) if names and all(map(self.n, names)) else None

    def rates_table(self):
        """k-NN at each rate, the best bold where all are run."""
        groups = {arm: own for arm, own in self.rates().items() if any(map(self.n, own.values()))}
        rates = dict.fromkeys(rate for own in groups.values() for rate in own)
        rows = []
        for arm, own in groups.items():
            words = self.arms[next(iter(own.values()))]["words"]
            means = {rate: self.mean(name) for rate, name in own.items()}
            best = self.best_rate(arm)
            cells = (None if means.get(rate) is None else f"**{plain(means[rate])}**" if own[rate] == best
                     else plain(means[rate]) for rate in rates)  # fmt: skip
            rows.append([re.split(r", [\d.]+ x learning rate|, an eighth|; backbone", words)[0], *cells])
        return table(["arm", *(f"rate x {rate}" for rate in rates)], rows)


def _arm_row(arm, keys):
    figures = arm["figures"]
    states = [f"{words} {arm['verdicts'][state]} of {len(arm['seeds'])}" for state, words in FALLEN.items()
              if state in arm["verdicts"]]  # fmt: skip
    states += [f"failed {len(arm['failed'])}"] if arm["failed"] else []
    return [
        arm["words"], len(arm["seeds"]),
        *(with_std(figures[key]["values"]) if key in figures else None for key in keys),
        plain(figures["projection_std"]["mean"], 2), plain(figures["projection_effective_rank"]["mean"], 0),
        plain(arm["passes"] / 1e6, 2), plain(arm["seconds"], 0), ", ".join(states),
    ]  # fmt: skip


def _beside(arm, cell_dir):
    """Figures that stand in the cells alone: of few labels, and of the test images once an arm has seeds enough."""
    files = [cell_dir / f"{arm.get('cells', {}).get(str(seed))}.json" for seed in arm["seeds"]]
    if not files or not all(file.exists() for file in files):
        return {}
    found, cells = [], [json.loads(file.read_text()) for file in files]
    for cell in cells:
        own = {f"{amount} of the labels_linear_top1": value for amount, value in cell.get("few_label", {}).items()}
        test = cell.get("test", {}) if len(cells) >= LEAST_SEEDS else {}
        found.append(own | {f"test images_{key}": value for key, value in test.items() if is_accuracy(key)})
    return {key: {"values": [own[key] for own in found]} for key in found[0] if all(key in own for own in found)}


def read_studies(folder):
    """File name without `.json` -> study.

    Args:
        folder: with a file a study, and `cells/`.
    """
    return {
        file.stem: Study(file.stem, json.loads(file.read_text()), folder / "cells")
        for file in sorted(Path(folder).glob("*.json"))
    }
