"""What the measurements mean, in plain words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

# See docs/collapse.md for the networks, collapsed on purpose and healthy, these were set on.
MIN_STD = 0.02
MIN_RANK = 2.0
PARTLY = 0.5
WHAT_TO_TRY = (
    "Try a predictor (--predictor), a guide (--guide nearest_views), an EMA target (--method byol) or a lower "
    "learning rate (--lr)."
)


@dataclass(frozen=True)
class Verdict:
    """A judgement: `state` for programs, `words` for people."""

    state: str
    """`collapsed`, `partly_collapsed`, `learnt`, `not_learnt` or `healthy` (no labels to say more)."""
    words: str


def find_collapse(now: Mapping[str, float], untrained: Mapping[str, float]) -> Verdict | None:
    """Judge eval-mode features and projections by spread and effective rank; None if neither speaks for collapse.

    A constant shows in the spread; two opposite points or a line show in the effective rank alone.
    """
    if now["feature_std"] < MIN_STD:
        return Verdict("collapsed", f"Collapsed: all images get nearly the same features (spread {now['feature_std']:.3f}, "
                       f"untrained {untrained['feature_std']:.3f}). {WHAT_TO_TRY}")  # fmt: skip
    for what, key in (("features", "effective_rank"), ("projections", "projection_effective_rank")):
        if now[key] < MIN_RANK:
            return Verdict("collapsed", f"Collapsed: the {what} vary along one line (effective rank {now[key]:.1f} of at most "
                           f"{now['rank_ceiling']:.0f}, untrained {untrained[key]:.1f}). {WHAT_TO_TRY}")  # fmt: skip
    if now["effective_rank"] < PARTLY * untrained["effective_rank"]:
        return Verdict("partly_collapsed", f"Partly collapsed: the features vary in fewer directions than the untrained network's "
                       f"(effective rank {now['effective_rank']:.1f}, untrained {untrained['effective_rank']:.1f}). {WHAT_TO_TRY}")  # fmt: skip
    return None


def judge(
    now: Mapping[str, float], untrained: Mapping[str, float], *, scores: Mapping[str, float], num_queries: int
) -> Verdict:
    """Say whether a run learnt.

    Args:
        now, untrained: measurements of the monitor at the end and before training.
        scores: k-NN accuracies `trained`, `untrained`, `pixels`, `pixels_centred`; empty without labels.
        num_queries: how many images they were measured on.
    """
    collapse = find_collapse(now, untrained)
    if not scores:
        return collapse or _without_labels(now, untrained)
    trained, before = scores["trained"], scores["untrained"]
    # Two standard errors of a difference of independent proportions: wider than the paired truth.
    margin = 2 * math.sqrt((trained * (1 - trained) + before * (1 - before)) / num_queries)
    figures = f"k-NN {trained:.1%}, untrained {before:.1%}"
    if collapse is not None:
        return Verdict(collapse.state, f"{collapse.words} ({figures}.)")
    if trained <= before + margin:
        words = f"Not learnt: {figures}, no more than chance explains. Train longer, or change augmentation or learning rate."
        return Verdict("not_learnt", words)
    pixels = max(scores["pixels"], scores["pixels_centred"])
    if pixels > trained:
        beside = f"Raw pixels do better still, {pixels:.1%}: these features are not yet worth having."
    else:
        beside = f"Raw pixels {pixels:.1%}."
    return Verdict("learnt", f"Learnt: {figures}. {beside}")


def _without_labels(now: Mapping[str, float], untrained: Mapping[str, float]) -> Verdict:
    views = (
        f"two views of an image lie at {now['relative_alignment']:.0%} of the squared distance between different images, "
        f"untrained {untrained['relative_alignment']:.0%}"
    )
    if now["relative_alignment"] < 0.8 * untrained["relative_alignment"]:
        return Verdict(
            "healthy",
            f"Healthy, and it learnt to tell images apart: {views}. Without labels no more can be said.",
        )
    return Verdict(
        "not_learnt",
        f"Not collapsed, but little learnt: {views}. Train longer, or use stronger augmentation.",
    )
