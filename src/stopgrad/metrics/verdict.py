"""What the measurements mean, in plain words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

# Set on networks that collapsed and networks that did not; docs/collapse.md has their measurements.
CONSTANT = 0.05
"""Spread, as a share of the untrained network's, below which all images count as getting the same features."""
LINE = 2.0
"""Effective rank below which features count as lying on a line."""
SHRUNK = 0.5
"""Spread, as a share of the untrained network's, below which a collapse is under way."""
FLAT = 0.1
"""Effective rank of the features, as a share of the untrained network's, below which a collapse is under way."""
FEW = 4.0
"""Effective rank of the projections below which a collapse is under way. No share of the untrained network's: the
projections of good backbones lose most of their rank."""
DEAD = 0.25
"""Share of dead dimensions from which on a collapse is under way, if it is also above the untrained network's."""
ALONE = 0.02
"""Spread below which all images count as getting the same features where there is no untrained network to compare."""
WHAT_TO_TRY = (
    "Try a predictor (--predictor), a guide (--guide nearest_views), an EMA target (--method byol) or a lower learning "
    "rate (--lr)."
)


@dataclass(frozen=True)
class Verdict:
    """A judgement: `state` for programs, `words` for people."""

    state: str
    """`collapsed`, `partly_collapsed`, `learnt`, `not_learnt` or `healthy` (no labels to say more)."""
    words: str


def find_collapse(now: Mapping[str, float], untrained: Mapping[str, float]) -> Verdict | None:
    """Judge eval-mode features and projections by spread and effective rank; None if neither speaks for collapse.

    A constant shows in the spread; two opposite points, or a line, in the effective rank alone.

    Args:
        now, untrained: measurements of the monitor, the latter before training.
    """
    features = now["feature_std"], untrained["feature_std"], now["effective_rank"], untrained["effective_rank"]
    projections = (now["projection_std"], untrained["projection_std"], now["projection_effective_rank"],
                   untrained["projection_effective_rank"])  # fmt: skip
    signs = [
        _sign("features", *features, low_rank=FLAT * untrained["effective_rank"]),
        _sign("projections", *projections, low_rank=FEW),
    ]
    return _verdict_of([sign for sign in signs if sign is not None], WHAT_TO_TRY)


def find_feature_collapse(
    now: Mapping[str, float], untrained: Mapping[str, float] | None, what_to_try: str = WHAT_TO_TRY
) -> Verdict | None:
    """Judge the eval-mode features of an encoder alone; None if nothing speaks for collapse.

    Args:
        now: feature_std, effective_rank, rank_ceiling and dead_share of the features.
        untrained: the same of the network before training; None where nobody knows how it began: then only what needs
            no comparison is judged, a constant, a line and dead dimensions.
        what_to_try: the end of the words.
    """
    signs: list[tuple[str, str] | None] = []
    std, rank = now["feature_std"], now["effective_rank"]
    if untrained is not None:
        std_before, rank_before = untrained["feature_std"], untrained["effective_rank"]
        signs.append(_sign("features", std, std_before, rank, rank_before, low_rank=FLAT * rank_before))
    elif std < ALONE:
        signs.append(("collapsed", f"all images get nearly the same features (their spread is {std:.2g})"))
    elif rank < LINE and now["rank_ceiling"] >= 2 * LINE:
        signs.append(("collapsed", f"all features lie on one line (their effective rank is {rank:.1f})"))
    dead, dead_before = now["dead_share"], untrained["dead_share"] if untrained is not None else 0.0
    if dead >= DEAD and dead > dead_before:
        compared = f", untrained {dead_before:.0%}" if untrained is not None else ""
        signs.append(("partly_collapsed", f"{dead:.0%} of the dimensions are dead{compared}"))
    return _verdict_of([sign for sign in signs if sign is not None], what_to_try)


def _sign(
    what: str, std: float, std_before: float, rank: float, rank_before: float, *, low_rank: float
) -> tuple[str, str] | None:
    """The state that spread and rank speak for, and the words."""
    spread = f"the spread of the {what} is {std:.2g}, untrained {std_before:.2g}"
    rank_of = f"the effective rank of the {what} is {rank:.1f}, untrained {rank_before:.1f}"
    if std < CONSTANT * std_before:
        return "collapsed", f"all images get nearly the same {what} ({spread})"
    if rank_before < 2 * LINE:
        return None  # a few images, or dimensions, which lie on a line whatever the network does
    if rank < LINE:
        return "collapsed", f"all {what} lie on one line ({rank_of})"
    if std < SHRUNK * std_before:
        return "partly_collapsed", spread
    if rank < low_rank:
        return "partly_collapsed", rank_of
    return None


def _verdict_of(signs: Sequence[tuple[str, str]], what_to_try: str) -> Verdict | None:
    for state, begins in (("collapsed", "Collapsed"), ("partly_collapsed", "Partly collapsed")):
        found = [words for kind, words in signs if kind == state]
        if found:
            return Verdict(state, f"{begins}: {' and '.join(found)}. {what_to_try}")
    return None


def judge(
    now: Mapping[str, float], untrained: Mapping[str, float], scores: Mapping[str, float], num_queries: int,
    few_label_scores: Mapping[str, float] = MappingProxyType({}),
) -> Verdict:  # fmt: skip
    """Say whether a run learnt.

    Args:
        now, untrained: measurements of the monitor at the end and before training.
        scores: k-NN accuracies `trained`, `untrained`, `pixels`, `pixels_centred`; empty without labels or baselines.
        num_queries: how many images they were measured on.
        few_label_scores: the same with 10 labels a class, where that was measured.
    """
    collapse = find_collapse(now, untrained)
    if not scores:
        return collapse or _without_labels(now, untrained)
    trained, before = scores["trained"], scores["untrained"]
    # Two standard errors of a difference of independent proportions: wider than the paired truth.
    margin = 2 * math.sqrt((trained * (1 - trained) + before * (1 - before)) / num_queries)
    figures, pixels = f"k-NN {trained:.1%}, untrained {before:.1%}", _best_pixels(scores)
    if collapse is not None:
        return Verdict(collapse.state, f"{collapse.words} ({figures}, raw pixels {pixels:.1%}.)")
    if trained <= before + margin:
        return Verdict(
            "not_learnt",
            f"Not learnt: {figures}, a difference that chance explains. Train longer, or change the learning rate or "
            f"the augmentation. Raw pixels {pixels:.1%}.",
        )
    words = "Learnt, but raw pixels do better" if pixels > trained else "Learnt"
    words = f"{words}: {figures}, raw pixels {pixels:.1%}."
    if few_label_scores:
        few, few_pixels = few_label_scores["trained"], _best_pixels(few_label_scores)
        better = "but raw pixels do better" if few_pixels > few else "better than raw pixels"
        words += f" With 10 labels a class {few:.1%}, {better}: {few_pixels:.1%}."
    return Verdict("learnt", words)


def _best_pixels(scores: Mapping[str, float]) -> float:
    return max(scores["pixels"], scores["pixels_centred"])


def _without_labels(now: Mapping[str, float], untrained: Mapping[str, float]) -> Verdict:
    views = (
        f"two views of an image lie at {now['relative_alignment']:.0%} of the squared distance between different "
        f"images, untrained {untrained['relative_alignment']:.0%}. Without labels and baselines no more can be said"
    )
    if now["relative_alignment"] < 0.8 * untrained["relative_alignment"]:
        return Verdict("healthy", f"Not collapsed, and it learnt to tell images apart: {views}.")
    return Verdict("not_learnt", f"Not collapsed, but it learnt little: {views}. Train longer.")
