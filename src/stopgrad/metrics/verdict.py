"""What the measurements mean, in plain words."""

import math
from collections.abc import Mapping
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
    signs: list[tuple[str, str]] = []
    for what, std_name, rank_name, low_rank in (
        ("features", "feature_std", "effective_rank", FLAT * untrained["effective_rank"]),
        ("projections", "projection_std", "projection_effective_rank", FEW),
    ):
        std, std_before, rank, rank_before = now[std_name], untrained[std_name], now[rank_name], untrained[rank_name]
        spread = f"the spread of the {what} is {std:.2g}, untrained {std_before:.2g}"
        rank_of = f"the effective rank of the {what} is {rank:.1f}, untrained {rank_before:.1f}"
        if std < CONSTANT * std_before:
            signs.append(("collapsed", f"all images get nearly the same {what} ({spread})"))
        elif rank_before < 2 * LINE:
            continue  # a few images, or dimensions, which lie on a line whatever the network does
        elif rank < LINE:
            signs.append(("collapsed", f"all {what} lie on one line ({rank_of})"))
        elif std < SHRUNK * std_before:
            signs.append(("partly_collapsed", spread))
        elif rank < low_rank:
            signs.append(("partly_collapsed", rank_of))
    for state, begins in (("collapsed", "Collapsed"), ("partly_collapsed", "Partly collapsed")):
        found = [words for kind, words in signs if kind == state]
        if found:
            return Verdict(state, f"{begins}: {' and '.join(found)}. {WHAT_TO_TRY}")
    return None


def judge(
    now: Mapping[str, float], untrained: Mapping[str, float], scores: Mapping[str, float], num_queries: int,
    few_label_scores: Mapping[str, float] = MappingProxyType({}),
) -> Verdict:  # fmt: skip
    """Say whether a run learnt.

    Args:
        now, untrained: measurements of the monitor at the end and before training.
        scores: k-NN accuracies `trained`, `untrained`, `pixels`, `pixels_centred`; empty without labels.
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
        f"images, untrained {untrained['relative_alignment']:.0%}. Without labels no more can be said"
    )
    if now["relative_alignment"] < 0.8 * untrained["relative_alignment"]:
        return Verdict("healthy", f"Not collapsed, and it learnt to tell images apart: {views}.")
    return Verdict("not_learnt", f"Not collapsed, but it learnt little: {views}. Train longer.")
