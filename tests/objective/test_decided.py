import pytest
import torch

from stopgrad.objective.decided import decidedness, distances_to_partner, keep_highest, nearest_of
from stopgrad.objective.guided import choose_partners
from stopgrad.objective.guides import nearest_views


@pytest.fixture
def target(generator):
    return torch.randn(8, 2, 6, generator=generator)


@pytest.fixture
def distances(target, generator):
    return distances_to_partner(target, choose_partners(8, generator))


def test_of_two_views_the_nearest_is_the_paper_s_choice(target, generator):
    partners = choose_partners(8, generator)
    assert torch.equal(nearest_of(distances_to_partner(target, partners)), nearest_views(target, partners))


def test_keeping_the_most_decided(distances):
    weights = keep_highest(nearest_of(distances), decidedness(distances), 0.5)
    kept = weights.sum(dim=1) > 0
    assert int(kept.sum()) == 4
    assert float(weights.sum(dim=1).mean()) == pytest.approx(1.0)
    least = distances.sort(dim=1).values
    margin = least[:, 1] - least[:, 0]
    assert margin[kept].min() >= margin[~kept].max()


def test_keeping_all_or_hardly_any():
    weights, score = torch.full((4, 2), 0.5), torch.tensor([0.1, 0.4, 0.2, 0.3])
    assert torch.equal(keep_highest(weights, score, 1.0), weights)
    assert keep_highest(weights, score, 0.01).sum(dim=1).tolist() == [0, 4, 0, 0]
