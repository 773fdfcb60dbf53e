import pytest
import torch

from stopgrad.metrics.guidance import guide_balance, guide_margin


def test_balance():
    assert guide_balance(torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == 0.5
    assert guide_balance(torch.tensor([[0.5, 0.0, 0.5, 0.0]])) == 1


def test_margin_of_known_distances():
    target = torch.tensor([[[0.0], [10.0]], [[1.0], [4.0]]])
    # Distances 1, 4, 9, 6.
    assert guide_margin(target, torch.tensor([1, 0])) == pytest.approx((4 - 1) / 5)


def test_margin_of_equal_targets_is_zero():
    assert guide_margin(torch.ones(4, 2, 3), torch.tensor([1, 0, 3, 2])) == 0
