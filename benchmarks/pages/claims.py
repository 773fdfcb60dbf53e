"""The paper's claims: what is compared for each, at which lengths, and by which rule a verdict is given.

A verdict is that of the longest schedule that has three seeds of both arms; whatever is shorter or has fewer stands
beside it.
"""

from dataclasses import dataclass

from pages.found import written
from pages.numbers import LEAST_SEEDS, spell
from pages.tables import best_rate

from stopgrad.studies.scales import scale_of
from stopgrad.studies.statistics import difference_of

LONG, TWICE, SMALL, DIGITS = "long", "small, twice", "small", "digits"
ORDER = (LONG, TWICE, SMALL, DIGITS)
"""The longest first."""
MAIN = {LONG: "claims-long", TWICE: "main-small-16-epochs-some", SMALL: "main-small", DIGITS: "main-digits"}
BARE = {LONG: "claims-long", SMALL: "no-predictor-small", DIGITS: "no-predictor-digits"}
BATCH = {SMALL: "batch-size-small", DIGITS: "batch-size-digits"}
RATES = "claims-rates-long"
WORDS = {"better": "higher", "worse": "lower", "not told apart": "no significant difference"}
NONE = "\N{EN DASH}"
NAMES = {"simsiam": "SimSiam", "byol": "BYOL"}


@dataclass(frozen=True)
class Row:
    """A difference, wherever it was measured."""

    words: str
    studies: dict
    """Length -> name of the results."""
    arm: str
    rival: str
    long: tuple = ()
    """Arm and rival of the long study, where they are others."""

    def pair(self, length):
        return self.long if length == LONG and self.long else (self.arm, self.rival)


@dataclass(frozen=True)
class Falls:
    """How many runs of some arms collapsed."""

    words: str
    studies: dict
    arms: tuple
    long: tuple = ()

    def at(self, length):
        return self.long if length == LONG and self.long else self.arms


def _accuracy(method):
    name = NAMES[method]
    return (
        Row(f"{name}, equal epochs, as the paper compares (twice the passes)", MAIN, f"{method}_gsg_4v",
            f"{method}_symmetric_2v"),
        Row(f"{name}, equal passes", MAIN, f"{method}_gsg_4v", f"{method}_symmetric_2v_2x"),
    )  # fmt: skip


def _bare(method):
    name, long = NAMES[method], method == "simsiam"
    four = (f"{method}_gsg_4v_bare", f"{method}_random_4v_bare", f"{method}_symmetric_2v_bare")
    studies = BARE if long else {k: v for k, v in BARE.items() if k != LONG}
    two = (f"{method}_gsg_2v_bare", f"{method}_random_2v_bare", f"{method}_symmetric_2v_bare")
    return {
        "symmetric": Row(f"{name} without predictor: guided minus symmetric, equal passes", studies, two[0], two[2]),
        "chance": Row(f"{name} without predictor: guided minus a random source", studies, *two[:2],
                      long=four[:2] if long else ()),
        "falls": Falls(f"{name} without predictor: runs that collapse, symmetric / random source / guided", studies,
                       (two[2], two[1], two[0]), (four[2], four[1], four[0]) if long else ()),
    }  # fmt: skip


ACCURACY = {method: _accuracy(method) for method in NAMES}
BARES = {method: _bare(method) for method in NAMES}
CHANCE = {
    method: Row(f"{name}, four views as published: guided minus random sources", MAIN, f"{method}_gsg_4v",
                f"{method}_random_4v") for method, name in NAMES.items()
}  # fmt: skip
SMALLER = Row("guided SimSiam: a quarter of the batch minus the usual, equal epochs", BATCH, "simsiam_gsg_b0.25",
              "simsiam_gsg_b1")  # fmt: skip
RIVAL_SMALLER = Row("SimCLR: the same", BATCH, "simclr_b0.25", "simclr_b1")
GUIDED_SMALLER = Row("SimSiam at a quarter of the batch: guided minus symmetric", BATCH, "simsiam_gsg_b0.25",
                     "simsiam_b0.25")  # fmt: skip


class Claims:
    """What the results say of the claims.

    Args:
        found: the results.
    """

    def __init__(self, found):
        self.found = found

    def difference(self, row, length):
        """What was measured at a length, in however few seeds; None where nothing was."""
        if length not in row.studies:
            return None
        return self.found.maybe(row.studies[length]).difference(*row.pair(length))

    def verdict(self, row):
        """`better`, `worse` or `not told apart`, and at which length; None and None without three seeds anywhere."""
        for length in ORDER:
            difference = self.difference(row, length)
            if difference is not None and difference.n >= LEAST_SEEDS:
                return difference.verdict, length
        return None, None

    def verdict_words(self, row):
        verdict, length = self.verdict(row)
        return "too few seeds: no verdict" if verdict is None else f"{WORDS[verdict]} ({self.length_name(length)})"

    def falls(self, row):
        """Arm's place in the row -> (collapsed, runs), and the length; where all its arms have three seeds."""
        for length in ORDER:
            study = self.found.maybe(row.studies.get(length, ""))
            if study and all(study.n(arm) >= LEAST_SEEDS for arm in row.at(length)):
                return [(study.num_fallen(arm), study.n(arm)) for arm in row.at(length)], length
        return None, None

    def length_name(self, length):
        """small, 16 epochs."""
        if length == LONG:
            return f"long, {scale_of('long').epochs} epochs"
        times = 2 if length == TWICE else 1
        scale = scale_of("digits" if length == DIGITS else "small")
        return f"{scale.name}, {times * scale.epochs} epochs"

    # The table

    def cell(self, row, length):
        """A difference at a length, as the table has it."""
        difference = self.difference(row, length)
        if difference is None:
            return "not run yet" if length == LONG and LONG in row.studies else ""
        if difference.n < LEAST_SEEDS:
            so_far = written(type(difference)(difference.n, difference.mean, None))
            return f"so far {so_far}, {difference.n} of {LEAST_SEEDS} seeds: no verdict"
        return written(difference, mark=True)

    def _cells(self, row):
        small = self.cell(row, SMALL)
        twice = self.cell(row, TWICE)
        if twice:
            epochs = scale_of("small").epochs
            small = f"{small}; {2 * epochs} epochs: {twice}"
        return [self.cell(row, LONG), small, self.cell(row, DIGITS)]

    def _fall_cells(self, row):
        cells = []
        for length in (LONG, SMALL, DIGITS):
            study = self.found.maybe(row.studies.get(length, ""))
            counts = [study.fallen(arm) if study.n(arm) else NONE for arm in row.at(length)]
            blank = "not run yet" if length == LONG and LONG in row.studies else ""
            cells.append(" / ".join(counts) if any(count != NONE for count in counts) else blank)
        return cells

    def rows(self):
        """Of the table of verdicts: comparison, long, small, digits, verdict."""
        blocks = (
            ("1. Guiding raises accuracy", self.accuracy(), [row for rows in ACCURACY.values() for row in rows]),
            ("2. Small batches work", self.batches(), [SMALLER, RIVAL_SMALLER, GUIDED_SMALLER]),
            ("3. No collapse without a predictor", self.collapse(),
             [own[kind] for own in BARES.values() for kind in ("falls", "symmetric")]),
            ("4. It is the guiding that does it", self.guiding(),
             [*CHANCE.values(), *(own["chance"] for own in BARES.values())]),
        )  # fmt: skip
        for title, verdict, rows in blocks:
            yield [f"**{title}**", "", "", "", f"**{verdict}**"]
            for row in rows:
                if isinstance(row, Falls):
                    _, length = self.falls(row)
                    words = f"({self.length_name(length)})" if length else "too few seeds: no verdict"
                    yield [row.words, *self._fall_cells(row), words]
                else:
                    yield [row.words, *self._cells(row), self.verdict_words(row)]

    # The verdicts

    def _told(self, rows):
        """Method -> row in words: no significant difference (SimSiam, BYOL)."""
        groups = {}
        for method, row in rows.items():
            verdict, _ = self.verdict(row)
            groups.setdefault(WORDS.get(verdict, "too few seeds"), []).append(NAMES[method])
        return "; ".join(f"{words} for {' and '.join(names)}" for words, names in groups.items())

    def accuracy(self):
        per_epoch = {method: rows[0] for method, rows in ACCURACY.items()}
        per_pass = {method: rows[1] for method, rows in ACCURACY.items()}
        better = sum(self.verdict(row)[0] == "better" for row in per_epoch.values())
        title = {0: "not reproduced at these lengths", len(per_epoch): "reproduced"}.get(better, "reproduced in part")
        return f"{title}: at equal epochs {self._told(per_epoch)}; at equal passes {self._told(per_pass)}"

    def batches(self):
        own, rival, guide = (self.verdict(row)[0] for row in (SMALLER, RIVAL_SMALLER, GUIDED_SMALLER))
        if own is None:
            return "too few seeds: no verdict"
        title = "not reproduced: guided SimSiam is lower" if own == "worse" else "reproduced: no significant loss"
        rivals = "" if rival is None else "; SimCLR is lower too" if rival == "worse" else ", as for SimCLR"
        merit = {"better": "; there guided is higher than symmetric", "worse": "; there guided is lower than symmetric",
                 "not told apart": "; there no significant difference between guided and symmetric"}  # fmt: skip
        return title + rivals + merit.get(guide, "")

    def collapse(self):
        return "; ".join(f"{NAMES[method]} {self._collapse(own)}" for method, own in BARES.items())

    def _collapse(self, own):
        found, _ = self.falls(own["falls"])
        if found is None:
            return "too few seeds: no verdict"
        (symmetric, n), _, (guided, m) = found
        if symmetric and guided < symmetric:
            title, of_guided = ("reproduced in part", f"{guided} of {m}") if guided else ("reproduced", "none")
            return f"{title}: symmetric collapses in {symmetric} of {n} runs, guided in {of_guided}"
        if guided:
            return f"not reproduced: guided collapses in {guided} of {m} runs, symmetric in {symmetric} of {n}"
        verdict, _ = self.verdict(own["symmetric"])
        told = {"better": "guided is higher", "worse": "guided is lower", "not told apart": WORDS["not told apart"]}
        return f"not testable at this length, symmetric does not collapse either ({told.get(verdict, 'too few seeds')})"

    def guiding(self):
        bare = {method: own["chance"] for method, own in BARES.items()}
        better = sum(self.verdict(row)[0] == "better" for row in bare.values())
        title = {0: "not reproduced", len(bare): "reproduced"}.get(better, "reproduced in part")
        return (
            f"{title} without a predictor: beside a random source {self._told(bare)}; "
            f"with a predictor {self._told(CHANCE)}"
        )

    # What the figures show

    def schedules(self, kind):
        """Complete schedules of an arm of SimSiam, the shortest first.

        Args:
            kind: `symmetric` or `gsg`.

        Returns:
            Scale -> points, each with `epochs`, `passes` (millions), `values` (per cent, a seed each).
        """
        name = {"symmetric": "simsiam_symmetric_2v", "gsg": "simsiam_gsg_4v"}[kind]
        small, twice = self.found.maybe(MAIN[SMALL]), self.found.maybe(MAIN[TWICE])
        rates, long = self.found.maybe(RATES), self.found.maybe(MAIN[LONG])
        wanted = {
            "small": [(small, name), (twice, name), (twice, f"{name}_2x")],
            "long": [(rates, best_rate(rates, name)), (rates, best_rate(rates, f"{name}_2x")), (long, name),
                     (long, f"{name}_2x")],
        }  # fmt: skip
        return {scale: [_point(study, arm) for study, arm in own if study.n(arm)] for scale, own in wanted.items()}

    def differences(self, place):
        """Guided minus symmetric SimSiam over the length of the guided run.

        Args:
            place: 0: at equal epochs; 1: at equal passes.

        Returns:
            Scale -> points, each with `epochs`, `passes` (of the guided run, millions) and `difference`.
        """
        row, points = ACCURACY["simsiam"][place], {"small": [], "long": []}
        for length in (SMALL, TWICE, LONG):
            study, difference = self.found.maybe(row.studies[length]), self.difference(row, length)
            if difference is not None:
                points["long" if length == LONG else "small"].append(_length_of(study, row.arm, difference))
        rates = self.found.maybe(RATES)
        arm, rival = best_rate(rates, row.arm), best_rate(rates, row.rival)
        if arm and rival:
            points["long"].insert(0, _length_of(rates, arm, rates.difference(arm, rival)))
        return points

    def trend(self, place):
        """From the usual length of the small scale to twice that: how the difference changes, paired by seed."""
        row = ACCURACY["simsiam"][place]
        longer, shorter = (self._by_seed(row, length) for length in (TWICE, SMALL))
        return difference_of(longer, shorter)

    def _by_seed(self, row, length):
        study = self.found.maybe(row.studies[length])
        own, rival = (study.values(name) for name in row.pair(length))
        return {seed: own[seed] - rival[seed] for seed in own if seed in rival}

    def trend_words(self, place):
        """stays, grows or shrinks, as far as can be told."""
        change = self.trend(place)
        first = self.difference(ACCURACY["simsiam"][place], SMALL)
        if change is None or first is None or change.n < LEAST_SEEDS:
            return "too few seeds: no verdict"
        if change.verdict == "not told apart":
            return "no significant change"
        return "it grows" if (change.mean > 0) == (first.mean > 0) else "it shrinks"

    def long_words(self):
        """What the long scale says of the same, as far as it is."""
        epochs, words = scale_of("long").epochs, []
        for row, costs in zip(ACCURACY["simsiam"], ("epochs", "passes"), strict=True):
            difference = self.difference(row, LONG)
            if difference is not None:
                words.append(f"at equal {costs} {self.cell(row, LONG)}")
        if words:
            return f"At {epochs} epochs of `long`: {', '.join(words)}."
        rates = self.found.maybe(RATES)
        for row, costs in zip(ACCURACY["simsiam"], ("epochs", "passes"), strict=True):
            arm, rival = best_rate(rates, row.arm), best_rate(rates, row.rival)
            if arm and rival:
                words.append(f"at equal {costs} {written(rates.difference(arm, rival))}")
        if not words:
            return f"At {epochs} epochs of `long` nothing is done yet."
        return (
            f"At {epochs} epochs of `long` nothing is done yet. In schedules an eighth as long, each arm at the best of its "
            f"rates: {', '.join(words)} (one seed, no verdict)."
        )

    def long_pairs(self):
        """Arms and rivals of the long study that a verdict names."""
        rows = [row for rows in ACCURACY.values() for row in rows] + list(CHANCE.values())
        rows += [own[kind] for own in BARES.values() for kind in ("symmetric", "chance")]
        return [row.pair(LONG) for row in rows if LONG in row.studies]

    def long_state(self):
        """How far the long study is: arms that have three seeds, of all that it has."""
        study = self.found.maybe(MAIN[LONG])
        if not study:
            return "none of its cells is done yet"
        c = study.content
        whole = sum(study.n(arm) >= LEAST_SEEDS for arm in study.arms)
        return (
            f"{c['num_done']} of {c['num_cells']} cells are done; {spell(whole)} of {len(study.arms)} arms "
            f"{'has' if whole == 1 else 'have'} three seeds"
        )


def _point(study, arm):
    own = study.arms[arm]
    return {"epochs": own["epochs"], "passes": own["passes"] / 1e6,
            "values": [100 * v for v in study.values(arm).values()]}  # fmt: skip


def _length_of(study, arm, difference):
    own = study.arms[arm]
    return {"epochs": own["epochs"], "passes": own["passes"] / 1e6, "difference": difference}
