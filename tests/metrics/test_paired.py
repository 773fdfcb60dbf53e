import pytest
import torch
from scipy.stats import binomtest

from stopgrad.metrics.paired import compare_paired


def pair(gained, lost, both, neither):
    now = [True] * gained + [False] * lost + [True] * both + [False] * neither
    before = [False] * gained + [True] * lost + [True] * both + [False] * neither
    return compare_paired(torch.tensor(now), torch.tensor(before))


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (9, 1), (30, 55), (400, 410), (3000, 2500)])
def test_p_is_that_of_the_exact_sign_test(gained, lost):
    found = pair(gained, lost, 100, 20)
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found.p == pytest.approx(expected, rel=1e-6)
    assert found.low <= found.difference <= found.high


def test_verdicts_and_their_mirror():
    better, worse, same = pair(20, 3, 70, 7), pair(3, 20, 70, 7), pair(6, 5, 80, 9)
    assert (better.verdict, worse.verdict, same.verdict) == ("better", "worse", "no significant difference")
    assert better.difference == pytest.approx(-worse.difference)
    assert (better.low, better.high) == pytest.approx((-worse.high, -worse.low))
    assert better.words.startswith("+17.0 points")


def test_the_interval_covers_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        now = torch.rand(120, generator=generator) < 0.9
        changed = torch.rand(120, generator=generator) < 0.1
        before = now ^ changed
        # Each image changes with 0.1: the difference's expectation is 0.1 x (0.9 - 0.1).
        found = compare_paired(now, before)
        covered += found.low <= 0.08 <= found.high
    assert covered >= 0.92 * 400


def test_all_the_same_is_no_difference():
    right = torch.tensor([True, False, True])
    found = compare_paired(right, right)
    assert (found.gained, found.lost, found.p, found.difference) == (0, 0, 1.0, 0.0)
