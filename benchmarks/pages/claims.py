"""The paper's claims: what is compared for each, and the rule by which a verdict is given.

The verdict on a comparison is that of the longest schedule that has three seeds of both arms.
"""

from dataclasses import dataclass

from pages.found import Study, plain, table, written
from stopgrad.studies.results import LEAST_SEEDS, difference_of
from stopgrad.studies.scales import scale_of

COLUMNS = {"long": 1, "small, twice": 2, "small": 1, "digits": 1}
"""Longest first -> how many times the epochs of its scale."""
FAMILIES = {
    "main": ("claims-long", "main-small-16-epochs-some", "main-small", "main-digits"),
    "bare": ("claims-long", "", "no-predictor-small", "no-predictor-digits"),
    "batch": ("", "", "batch-size-small", "batch-size-digits"),
}
"""The studies of a comparison, one a column."""
GUIDED_BARE = {"on four views": "simsiam_gsg_4v_bare", "on two views": "simsiam_gsg_2v_bare"}
RIVALS_BARE = {"symmetric": "simsiam_symmetric_2v_bare", "random sources on four views": "simsiam_random_4v_bare"}
RATES, LONG, SMALL = "claims-rates-long", "claims-long", "main-small"
NO_DIFFERENCE = "no significant difference"
WORDS = {"better": "higher", "worse": "lower", NO_DIFFERENCE: NO_DIFFERENCE, None: "too few seeds"}
METHODS = {"simsiam": "SimSiam", "byol": "BYOL"}


@dataclass(frozen=True)
class Row:
    """A comparison, wherever it was made."""

    words: str
    family: str
    arm: str
    rival: str
    long: tuple = ()
    """Arm and rival at the scale `long`, where they have other names there."""


def _of_methods(words, family, arm, rival, long=()):
    return {m: Row(f"{name}: {words}", family, f"{m}_{arm}", f"{m}_{rival}", tuple(f"{m}_{end}" for end in long))
            for m, name in METHODS.items()}  # fmt: skip


EPOCHS = _of_methods("equal epochs, as the paper compares (twice the passes)", "main", "gsg_4v", "symmetric_2v")
PASSES = _of_methods("equal passes", "main", "gsg_4v", "symmetric_2v_2x")
CHANCE = _of_methods("with a predictor, guided minus random sources", "main", "gsg_4v", "random_4v")
BARE = _of_methods("guided minus symmetric, equal passes", "bare", "gsg_2v_bare", "symmetric_2v_bare")
BARE_CHANCE = _of_methods("without a predictor, guided minus random sources", "bare", "gsg_2v_bare", "random_2v_bare",
                          ("gsg_4v_bare", "random_4v_bare"))  # fmt: skip
BATCH = (
    Row("guided SimSiam: a quarter of the batch minus the usual, equal epochs", "batch", "simsiam_gsg_b0.25",
        "simsiam_gsg_b1"),
    Row("SimCLR: the same", "batch", "simclr_b0.25", "simclr_b1"),
    Row("a quarter of the batch: guided minus symmetric SimSiam", "batch", "simsiam_gsg_b0.25", "simsiam_b0.25"),
)  # fmt: skip


def _eighth(arm, rate=1):
    """The name of an arm of `long` in a schedule an eighth as long, at so many times the scale's rate."""
    return f"{arm}_eighth_lr{rate}"


class Claims:
    """What the studies say of the claims.

    Args:
        studies: as `read_studies` has them.
    """

    def __init__(self, studies):
        self.studies = studies

    def study(self, name):
        """One of all arms, or else of some; without arms where neither was run."""
        return self.studies.get(name) or self.studies.get(f"{name}-some") or Study(name)

    def difference(self, row, place):
        """What was found in a column, of however few seeds; None where nothing was."""
        pair = row.long if place == 0 and row.long else (row.arm, row.rival)
        return self.study(FAMILIES[row.family][place]).difference(*pair)

    def verdict(self, row):
        """`better`, `worse` or `NO_DIFFERENCE`, and its column; None and None without three seeds anywhere."""
        for place in range(len(COLUMNS)):
            found = self.difference(row, place)
            if found is not None and found.n >= LEAST_SEEDS:
                return found.verdict, place
        return None, None

    def falls(self, method):
        """Column -> for symmetric and for guided without a predictor: runs that collapsed, and runs."""
        row, found = BARE[method], {}
        for place, name in enumerate(FAMILIES["bare"]):
            study = self.study(name)
            counts = [(study.fallen(arm), study.n(arm)) for arm in (row.rival, row.arm)]
            if any(n for _, n in counts):
                found[place] = counts
        return found

    def falls_at_twice(self):
        """symmetric 0 of 3, guided 1 of 1; of the arms at twice the rate of `long` that have runs."""
        study = self.study(LONG)
        names = {"symmetric": "simsiam_symmetric_2v_lr2", "guided": "simsiam_gsg_4v_lr2",
                 "random sources": "simsiam_random_4v_lr2"}  # fmt: skip
        done = {words: arm for words, arm in names.items() if study.n(arm)}
        return ", ".join(f"{words} {study.fallen(arm)} of {study.n(arm)}" for words, arm in done.items())

    def gain_of_twice(self):
        """By which twice the rate was better for guided SimSiam where rates were tried."""
        return self.study(RATES).difference(_eighth("simsiam_gsg_4v", 2), _eighth("simsiam_gsg_4v")).mean

    def best_of_rates(self, arm):
        """The highest k-NN accuracy, in per cent, of an arm where rates were tried, in an eighth of the length."""
        found = (self.study(RATES).mean(_eighth(arm, rate)) for rate in (0.5, 1, 2))
        return max(value for value in found if value is not None)

    # Verdicts in words

    def told(self, rows):
        """no significant difference for SimSiam (long, 52 epochs); guided lower for BYOL (small, 8 epochs)."""
        groups = {}
        for method, row in rows.items():
            verdict, place = self.verdict(row)
            words = f"guided {WORDS[verdict]}" if verdict in ("better", "worse") else WORDS[verdict]
            where = "" if place is None else f" ({self.length(place)})"
            groups.setdefault(words, {}).setdefault(where, []).append(METHODS[method])
        return "; ".join(
            f"{words} for {' and '.join(' and '.join(names) + where for where, names in places.items())}"
            for words, places in groups.items()
        )

    def _reproduced(self, rows):
        verdicts = [self.verdict(row)[0] for row in rows.values()]
        if all(v is None for v in verdicts):
            return "too few seeds"
        better = verdicts.count("better")
        return "reproduced" if better == len(verdicts) else "reproduced in part" if better else "not reproduced"

    def accuracy(self):
        return (f"{self._reproduced(EPOCHS)} at these lengths: at equal epochs {self.told(EPOCHS)}; "
                f"at equal passes {self.told(PASSES)}")  # fmt: skip

    def batches(self):
        own, rival, merit = (self.verdict(row)[0] for row in BATCH)
        if own is None:
            return "too few seeds"
        title = "not reproduced: a loss" if own == "worse" else "reproduced: no significant loss"
        others = {None: "", "worse": "; SimCLR loses"}.get(rival, "; SimCLR loses nothing either")
        return f"{title}{others}; guided minus symmetric at the small batch: {WORDS[merit]}"

    def collapse(self):
        return "; ".join(self._collapse(method) for method in METHODS)

    def _collapse(self, method):
        """By the longest schedule with three seeds; where guided collapses there and not in a shorter one, by both."""
        judged = []
        for place, ((symmetric, n), (guided, m)) in self.falls(method).items():
            if m < LEAST_SEEDS or (n < LEAST_SEEDS and not guided):
                continue
            kept = n >= LEAST_SEEDS and guided < symmetric
            title = ("reproduced in part" if guided else "reproduced") if kept else "not reproduced"
            if not guided and not kept:
                title = "not testable here"
            runs = f"guided in {guided} of {m}"
            if n >= LEAST_SEEDS:
                runs = f"symmetric collapses in {symmetric} of {n} runs, {runs}"
            judged.append((title, f"({runs}; {self.length(place)})"))
        name = METHODS[method]
        if not judged:
            return f"too few seeds of {name}"
        title, where = judged[0]
        shorter = [(t, w) for t, w in judged if t.startswith("reproduced")]
        if title == "not reproduced" and shorter:
            verdict, place = self.verdict(BARE[method])
            ahead = ""
            if verdict == "better" and self.length(place) in where:
                points = plain(100 * self.difference(BARE[method], place).mean)
                ahead = f", where guided is {points} points ahead in k-NN at equal passes all the same"
            return f"{shorter[0][0]} for {name} {shorter[0][1]}, but not in longer training {where}{ahead}"
        return f"{title} for {name} {where}"

    def bare_at_long(self, arms):
        """How arms of SimSiam without a predictor end at `long`; those that lack seeds are left out.

        Args:
            arms: what an arm is called -> the arm.
        """
        study, told = self.study(LONG), []
        for words, arm in arms.items():
            if study.n(arm) >= LEAST_SEEDS:
                projections, features = (
                    plain(study.mean(arm, f"{of}effective_rank") / 100) for of in ("projection_", "")
                )
                told.append(f"{words} rank {projections} of the projections and {features} of the features, "
                            f"k-NN {plain(study.mean(arm))}")  # fmt: skip
        return "; ".join(told)

    def guiding(self):
        return (f"{self._reproduced(BARE_CHANCE)} without a predictor: {self.told(BARE_CHANCE)}; "
                f"with one: {self.told(CHANCE)}")  # fmt: skip

    # The table

    def table(self):
        """Every comparison at every length, with the verdicts."""
        both = list(METHODS)
        blocks = (
            ("1. Guiding raises accuracy", self.accuracy(), [*EPOCHS.values(), *PASSES.values()]),
            ("2. Small batches work", self.batches(), BATCH),
            ("3. No collapse without a predictor", self.collapse(), [x for m in both for x in (m, BARE[m])]),
            ("4. It is the guiding that does it", self.guiding(), [*BARE_CHANCE.values(), *CHANCE.values()]),
        )
        shown = [place for place in range(len(COLUMNS)) if place or self.study(LONG)]
        rows = []
        for title, verdict, own in blocks:
            rows.append([f"**{title}**", *[""] * len(shown), f"**{verdict}**"])
            rows += [self._falls_row(row, shown) if row in METHODS else self._row(row, shown) for row in own]
        return table(["comparison", *(self.length(place) for place in shown), "verdict"], rows)

    def _row(self, row, shown):
        verdict, place = self.verdict(row)
        at = "" if place is None else f" ({self.length(place)})"
        return [row.words, *(written(self.difference(row, p)) for p in shown), WORDS[verdict] + at]

    def _falls_row(self, method, shown):
        found = {
            place: " / ".join(f"{f} of {n}" if n else "not run" for f, n in own)
            for place, own in self.falls(method).items()
        }
        return [f"{METHODS[method]}: runs that collapse, symmetric / guided", *(found.get(p, "") for p in shown), ""]

    @staticmethod
    def length(place):
        """small, 16 epochs."""
        name, times = list(COLUMNS.items())[place]
        scale = scale_of(name.split(",")[0])
        return f"{scale.name}, {times * scale.epochs} epochs"

    @staticmethod
    def num_images(name):
        """That a scale trains on."""
        scale = scale_of(name)
        return (scale.num_images or scale.data_size) - scale.num_held_out

    def state_of_long(self):
        """How far the long study is."""
        study = self.study(LONG)
        if not study:
            return "no cell of `claims` at `long` is done yet"
        whole = sum(study.n(arm) >= LEAST_SEEDS for arm in study.arms)
        return (f"of `claims` at `long` {study['num_done']} of {study['num_cells']} cells are done, and {whole} of "
                f"{len(study.arms)} arms have three seeds")  # fmt: skip

    def trend(self, row):
        """How a difference changes from the usual length of `small` to twice that, paired by seed."""
        twice, usual = (self.study(FAMILIES[row.family][place]) for place in (1, 2))
        by_seed = [{seed: own - rival[seed] for seed, own in study.values(row.arm).items() if seed in rival}
                   for study in (twice, usual) for rival in [study.values(row.rival)]]  # fmt: skip
        found = difference_of(*by_seed)
        if found is None or found.n < LEAST_SEEDS:
            return "too few seeds"
        grows = (found.mean > 0) == (self.difference(row, 2).mean > 0)
        words = "no significant change" if found.verdict == NO_DIFFERENCE else "it grows" if grows else "it shrinks"
        return f"{words} ({written(found, bold=False).replace(' (', ' points, ')}"

    # The figures: of SimSiam, scale -> (study, arm) or (study, arm, rival), the shortest schedule first

    def schedules(self, arm):
        """Complete schedules of an arm and of the same with twice the epochs."""
        small, twice, rates, long = map(self.study, (SMALL, FAMILIES["main"][1], RATES, LONG))
        own = {"small": [(small, arm), (twice, arm), (twice, f"{arm}_2x")],
               "long": [(rates, _eighth(arm)), (rates, _eighth(f"{arm}_2x")), (long, arm),
                        (long, f"{arm}_2x")]}  # fmt: skip
        return {scale: [(s, name) for s, name in found if s.n(name)] for scale, found in own.items()}

    def differences(self, row):
        """At all lengths."""
        arm, rival, rates = row.arm, row.rival, self.study(RATES)
        small, twice, long = map(self.study, (SMALL, FAMILIES["main"][1], LONG))
        own = {"small": [(small, arm, rival), (twice, arm, rival)],
               "long": [(rates, _eighth(arm), _eighth(rival)), (long, arm, rival)]}  # fmt: skip
        return {scale: [(s, *pair) for s, *pair in found if s.difference(*pair)] for scale, found in own.items()}
