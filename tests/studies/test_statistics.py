import numpy as np
import pytest
from scipy import stats

from stopgrad.studies.results import difference_of, mean_std_of


def test_mean_and_std():
    found = mean_std_of([0.5, 0.6, 0.7])
    assert found.mean == pytest.approx(0.6)
    assert found.std == pytest.approx(0.1)
    assert mean_std_of([0.5]).std is None


def test_the_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 0.1, 6), rng.normal(0.4, 0.1, 6)
    found = difference_of(dict(enumerate(first)), dict(enumerate(second)))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((first - second).mean())


def test_only_seeds_that_both_have_are_paired():
    found = difference_of({0: 0.5, 1: 0.6, 7: 0.9}, {1: 0.5, 0: 0.3, 2: 0.1})
    assert found.n == 2
    assert found.mean == pytest.approx(0.15)
    assert difference_of({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [([0.1], "too few seeds"), ([0.1, 0.1], "too few seeds"), ([0.1, 0.11, 0.12], "better"),
     ([-0.1, -0.11, -0.12], "worse"), ([0.1, -0.1, 0.05], "no significant difference")],
)  # fmt: skip
def test_the_verdict(differences, verdict):
    zero = dict.fromkeys(range(len(differences)), 0.0)
    assert difference_of(dict(enumerate(differences)), zero).verdict == verdict


def test_equal_everywhere_is_not_told_apart():
    same = {0: 0.5, 1: 0.5, 2: 0.5}
    assert difference_of(same, same).verdict == "no significant difference"
