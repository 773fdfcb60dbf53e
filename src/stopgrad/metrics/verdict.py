"""Verdicts on collapse from the measurements, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from stopgrad.metrics.paired import Paired

UNTRAINED, START = "untrained", "as it started"
"""What a network before training is called: drawn weights, or those it came with."""
# Set on networks that collapsed and networks that did not; docs/collapse.md has their measurements.
CONSTANT = 0.05
"""Standard deviation, as a share of the untrained network's, below which features count as constant."""
LINE = 2.0
"""Effective rank below which features count as lying on a line."""
SHRUNK = 0.5
"""Standard deviation, as a share of the untrained network's, below which a collapse is under way."""
FLAT = 0.1
"""Effective rank of the features, as a share of the untrained network's, below which a collapse is under way."""
SHRUNK_SINCE_START, FLAT_SINCE_START = 0.25, 0.2
"""The same beside a start with weights. ImageNet weights spread images of one domain over directions that tell apart
what is not in it, and lose half the standard deviation and more while k-NN rises."""
HARMLESS = 0.5
"""Standard deviation and effective rank of the features, as shares of the start's, from which on training counts as
harmless where there are no labels, if the relative alignment fell too; docs/adapt.md has the runs."""
FEW = 4.0
"""Effective rank of the projections below which a collapse is under way. No share of the untrained network's: the
projections of good backbones lose most of their rank."""
DEAD = 0.25
"""Share of dead dimensions from which on a collapse is under way, if it is also above the untrained network's."""
ALONE = 0.02
"""Standard deviation below which features count as constant where there is no untrained network to compare."""
WHAT_TO_TRY = (
    "Try a predictor (--predictor), a guide (--guide nearest_views), an EMA target (--method byol) or a lower learning "
    "rate (--lr)."
)


@dataclass(frozen=True)
class Verdict:
    """A judgement: `state` for programs, `words` for people."""

    state: str
    """`collapsed`, `partly_collapsed`, `learnt`, `not_learnt` or `healthy` (no labels to say more); beside a start with
    weights also `worse` and `kept_start`."""
    words: str


def find_collapse(
    now: Mapping[str, float], before: Mapping[str, float], before_is: str = UNTRAINED
) -> Verdict | None:  # fmt: skip
    """Judge eval-mode features and projections by standard deviation and effective rank; None without collapse.

    A constant shows in the standard deviation; two opposite points, or a line, in the effective rank alone.

    Args:
        now, before: measurements of the monitor, the latter before training.
        before_is: what the network was then called, `UNTRAINED` or `START`.
    """
    features = now["feature_std"], before["feature_std"], now["effective_rank"], before["effective_rank"]
    projections = (now["projection_std"], before["projection_std"], now["projection_effective_rank"],
                   before["projection_effective_rank"])  # fmt: skip
    signs = [
        _sign("features", *features, low_rank=_flat(before_is) * before["effective_rank"], before_is=before_is),
        _sign("projections", *projections, low_rank=FEW, before_is=before_is),
    ]
    return _verdict_of([sign for sign in signs if sign is not None], WHAT_TO_TRY)


def is_harmless(now: Mapping[str, float], start: Mapping[str, float]) -> bool:
    """Whether training of weights that exist may be trusted without labels: views closer, variation kept.

    Args:
        now, start: feature_std, effective_rank and relative_alignment of the features, and at the start.
    """
    return (
        now["relative_alignment"] < start["relative_alignment"]
        and now["feature_std"] >= HARMLESS * start["feature_std"]
        and now["effective_rank"] >= HARMLESS * start["effective_rank"]
    )


def find_feature_collapse(
    now: Mapping[str, float], before: Mapping[str, float] | None, what_to_try: str = WHAT_TO_TRY,
    before_is: str = UNTRAINED,
) -> Verdict | None:  # fmt: skip
    """Judge the eval-mode features of an encoder alone; None if nothing speaks for collapse.

    Args:
        now: feature_std, effective_rank, rank_ceiling and dead_share of the features.
        before: the same of the network before training; None where it is unknown: then only what needs no
            comparison is judged, a constant, a line and dead dimensions.
        what_to_try: the end of the words.
        before_is: as in `find_collapse`.
    """
    signs: list[tuple[str, str] | None] = []
    std, rank = now["feature_std"], now["effective_rank"]
    if before is not None:
        std_before, rank_before = before["feature_std"], before["effective_rank"]
        low_rank = _flat(before_is) * rank_before
        signs.append(_sign("features", std, std_before, rank, rank_before, low_rank=low_rank, before_is=before_is))
    elif std < ALONE:
        signs.append(("collapsed", f"all images get nearly the same features (their standard deviation is {std:.2g})"))
    elif rank < LINE and now["rank_ceiling"] >= 2 * LINE:
        signs.append(("collapsed", f"all features lie on one line (their effective rank is {rank:.1f})"))
    dead, dead_before = now["dead_share"], before["dead_share"] if before is not None else 0.0
    if dead >= DEAD and dead > dead_before:
        compared = f", {before_is} {dead_before:.0%}" if before is not None else ""
        signs.append(("partly_collapsed", f"{dead:.0%} of the dimensions are dead{compared}"))
    return _verdict_of([sign for sign in signs if sign is not None], what_to_try)


def _flat(before_is: str) -> float:
    return FLAT if before_is == UNTRAINED else FLAT_SINCE_START


def _sign(
    what: str, std: float, std_before: float, rank: float, rank_before: float, *, low_rank: float, before_is: str
) -> tuple[str, str] | None:
    """The state by standard deviation and rank, and the words."""
    told = f"the standard deviation of the {what} is {std:.2g}, {before_is} {std_before:.2g}"
    rank_of = f"the effective rank of the {what} is {rank:.1f}, {before_is} {rank_before:.1f}"
    if std < CONSTANT * std_before:
        return "collapsed", f"all images get nearly the same {what} ({told})"
    if rank_before < 2 * LINE:
        return None  # a few images, or dimensions, which lie on a line whatever the network does
    if rank < LINE:
        return "collapsed", f"all {what} lie on one line ({rank_of})"
    if std < (SHRUNK if before_is == UNTRAINED else SHRUNK_SINCE_START) * std_before:
        return "partly_collapsed", told
    if rank < low_rank:
        return "partly_collapsed", rank_of
    return None


def _verdict_of(signs: Sequence[tuple[str, str]], what_to_try: str) -> Verdict | None:
    for state, begins in (("collapsed", "Collapsed"), ("partly_collapsed", "Partly collapsed")):
        found = [words for kind, words in signs if kind == state]
        if found:
            return Verdict(state, f"{begins}: {' and '.join(found)}. {what_to_try}")
    return None


@dataclass(frozen=True)
class Kept:
    """Which encoder of a run was kept, and by what it was chosen."""

    step: int
    """0: the one it started with."""
    last_step: int
    chosen_by: str
    """In words."""
    score: float | None = None
    """k-NN by labels, in 0..1; None without labels."""
    start_score: float | None = None

    @property
    def is_start(self) -> bool:
        """Whether no training is in it."""
        return self.step == 0

    @property
    def words(self) -> str:
        """What was kept, for people."""
        where = "the end" if self.step == self.last_step else f"step {self.step:,} of {self.last_step:,}"
        if self.score is None or self.start_score is None:
            return f"Kept {'as it started' if self.is_start else f'from {where}'}, {self.chosen_by}."
        if self.is_start:
            return f"Kept as it started: nothing measured on the way was better by {self.chosen_by}."
        return (
            f"Kept from {where}: {self.score:.1%} by {self.chosen_by}, as it started {self.start_score:.1%}."
        )  # fmt: skip


def judge(
    now: Mapping[str, float], before: Mapping[str, float], scores: Mapping[str, float], paired: Paired | None = None,
    few_label_scores: Mapping[str, float] = MappingProxyType({}), *, before_is: str = UNTRAINED,
    kept: Kept | None = None,
) -> Verdict:  # fmt: skip
    """Say whether a run learnt.

    Args:
        now, before: measurements of the monitor at the end and before training.
        scores: k-NN accuracies `trained`, `untrained` or `start`, `pixels`, `pixels_centred`; empty without labels or
            baselines.
        paired: trained beside untrained or start, on the images that the scores are of.
        few_label_scores: the same with 10 labels a class, where that was measured.
        before_is: as in `find_collapse`.
        kept: the choice, where one was made.
    """
    if kept is not None and kept.is_start:
        return Verdict("kept_start", f"{kept.words}{_start_words(scores, paired)}")
    choice = f" {kept.words}" if kept is not None else ""
    collapse = find_collapse(now, before, before_is)
    if not scores or paired is None:
        found = collapse or _without_labels(now, before, before_is)
        return Verdict(found.state, f"{found.words}{choice}")
    trained, pixels = scores["trained"], _best_pixels(scores)
    beside = scores["start" if before_is == START else "untrained"]
    figures = f"k-NN {trained:.1%}, {before_is} {beside:.1%} ({paired.words})"
    if collapse is not None:
        return Verdict(collapse.state, f"{collapse.words} {figures}; raw pixels {pixels:.1%}.{choice}")
    if paired.verdict != "better":
        return _no_better(paired, figures, pixels, before_is, choice)
    begins = "Learnt" if before_is == UNTRAINED else "Better than it started"
    words = f"{begins}, but raw pixels do better" if pixels > trained else begins
    words = f"{words}: {figures}; raw pixels {pixels:.1%}."
    if few_label_scores:
        few, few_pixels = few_label_scores["trained"], _best_pixels(few_label_scores)
        better = "but raw pixels do better" if few_pixels > few else "better than raw pixels"
        words += f" With 10 labels a class {few:.1%}, {better}: {few_pixels:.1%}."
    return Verdict("learnt", f"{words}{choice}")


def _no_better(paired: Paired, figures: str, pixels: float, before_is: str, choice: str) -> Verdict:
    if before_is == UNTRAINED:
        return Verdict(
            "not_learnt",
            f"Not learnt: {figures}, no better than chance explains. Train longer, or change the learning rate or the "
            f"augmentation. Raw pixels {pixels:.1%}.",
        )
    if paired.verdict == "worse":
        return Verdict(
            "worse",
            f"Worse than it started: {figures}. Take the weights as they came (keep = 'best' does so by itself), or "
            f"train with a lower learning rate. Raw pixels {pixels:.1%}.{choice}",
        )
    return Verdict(
        "not_learnt", f"No significant difference: {figures}; raw pixels {pixels:.1%}.{choice}"
    )  # fmt: skip


def _start_words(scores: Mapping[str, float], paired: Paired | None) -> str:
    if "start" not in scores:
        return ""
    words = f" k-NN {scores['start']:.1%}"
    if paired is not None:
        words += f"; trained {scores['trained']:.1%} ({paired.words})"
    return f"{words}; raw pixels {_best_pixels(scores):.1%}." if "pixels" in scores else f"{words}."


def _best_pixels(scores: Mapping[str, float]) -> float:
    return max(scores["pixels"], scores["pixels_centred"])


def _without_labels(now: Mapping[str, float], before: Mapping[str, float], before_is: str) -> Verdict:
    views = (
        f"two views of an image lie at {now['relative_alignment']:.0%} of the squared distance between different "
        f"images, {before_is} {before['relative_alignment']:.0%}. Without labels and baselines no more can be said"
    )
    if now["relative_alignment"] < 0.8 * before["relative_alignment"]:
        return Verdict("healthy", f"Not collapsed, and it learnt to tell images apart: {views}.")
    return Verdict("not_learnt", f"Not collapsed, but it learnt little: {views}. Train longer.")
