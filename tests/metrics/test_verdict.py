"""Features judged alone: by the rules that a run is judged by, and by dead dimensions."""

import pytest

from stopgrad.metrics.verdict import START, find_collapse, find_feature_collapse, is_harmless

HEALTHY = {"feature_std": 0.5, "effective_rank": 50.0, "rank_ceiling": 128.0, "dead_share": 0.0}
PROJECTIONS = {"projection_std": 1.0, "projection_effective_rank": 60.0}


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ({}, None, ""),
        (
            {"feature_std": 0.02},
            "collapsed",
            "the same features (the standard deviation of the features is 0.02, untrained",
        ),
        ({"effective_rank": 1.5}, "collapsed", "on one line"),
        ({"feature_std": 0.2}, "partly_collapsed", "the standard deviation of the features is 0.2, untrained 0.5"),
        ({"effective_rank": 4.5}, "partly_collapsed", "the effective rank of the features is 4.5, untrained 50.0"),
        ({"dead_share": 0.3}, "partly_collapsed", "30% of the dimensions are dead, untrained 0%"),
        ({"dead_share": 0.2}, None, ""),
    ],
)
def test_beside_the_untrained_network(change, state, words):
    now = {**HEALTHY, **change}
    verdict = find_feature_collapse(now, HEALTHY)
    assert (verdict.state if verdict else None) == state
    assert verdict is None or words in verdict.words
    if "dead_share" not in change:
        # A run is judged alike by its features, and by its projections beside.
        whole = find_collapse({**now, **PROJECTIONS}, {**HEALTHY, **PROJECTIONS})
        assert whole == verdict


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, None),
        ({"feature_std": 0.2}, None),
        ({"feature_std": 0.01}, "collapsed"),
        ({"effective_rank": 1.2}, "collapsed"),
        ({"effective_rank": 1.2, "rank_ceiling": 2.0}, None),
        ({"dead_share": 0.5}, "partly_collapsed"),
    ],
)
def test_alone(change, state):
    verdict = find_feature_collapse({**HEALTHY, **change}, None, "Try.")
    assert (verdict.state if verdict else None) == state
    assert verdict is None or verdict.words.endswith("Try.")
    assert verdict is None or "untrained" not in verdict.words


def test_as_many_dead_as_before_training_are_no_collapse():
    assert find_feature_collapse({**HEALTHY, "dead_share": 0.3}, {**HEALTHY, "dead_share": 0.3}) is None


def test_collapsed_features_and_dead_ones_are_collapsed():
    verdict = find_feature_collapse({**HEALTHY, "effective_rank": 1.0, "dead_share": 0.9}, HEALTHY)
    assert verdict.state == "collapsed"


START_OF = {"feature_std": 0.65, "effective_rank": 350.0, "relative_alignment": 0.44, "projection_std": 0.8,
            "projection_effective_rank": 360.0}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "harmless"),
    [
        ({"relative_alignment": 0.32, "feature_std": 0.62, "effective_rank": 332.0}, True),  # VICReg, flowers12
        ({"relative_alignment": 0.14, "feature_std": 0.37, "effective_rank": 136.0}, False),
        (
            {"relative_alignment": 0.15, "feature_std": 0.04, "effective_rank": 38.0},
            False,
        ),  # SimCLR, k-NN falls
        ({}, False),  # nothing moved
    ],
)
def test_training_counts_as_harmless_without_labels_while_std_and_rank_stay(changes, harmless):
    assert is_harmless({**START_OF, **changes}, START_OF) is harmless


def test_weights_that_exist_may_lose_half_their_std_and_drawn_ones_may_not():
    now = {**START_OF, "feature_std": 0.27, "effective_rank": 150.0}
    assert find_collapse(now, START_OF, START) is None
    assert find_collapse(now, START_OF).state == "partly_collapsed"
    less = {**START_OF, "feature_std": 0.04, "effective_rank": 38.0}
    assert find_collapse(less, START_OF, START).state == "partly_collapsed"
    assert find_collapse({**START_OF, "effective_rank": 69.0}, START_OF, START).state == "partly_collapsed"
