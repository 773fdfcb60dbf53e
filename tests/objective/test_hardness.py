import pytest
import torch

from stopgrad.objective.guided import choose_partners
from stopgrad.objective.guides import nearest_of_all
from stopgrad.objective.hardness import (
    decidedness,
    disagreement,
    distances_to_bank,
    distances_to_batch,
    distances_to_partner,
    keep_highest,
    weights_of,
)


@pytest.fixture
def target(generator):
    return torch.randn(8, 4, 6, generator=generator)


def test_the_paper_s_guide_is_a_special_case(target, generator):
    partners = choose_partners(8, generator)
    assert torch.equal(weights_of(distances_to_partner(target, partners)), nearest_of_all(target, partners))


@pytest.mark.parametrize(("neighbours", "skip"), [(1, 0), (3, 2), (100, 0), (1, 100)])
def test_batch_distances_by_hand(target, neighbours, skip):
    found = distances_to_batch(target, neighbours=neighbours, skip=skip)
    for i in range(8):
        others = torch.cat([target[j] for j in range(8) if j != i])
        for v in range(4):
            ordered = (others - target[i, v]).square().sum(dim=1).sort().values
            first = min(skip, len(ordered) - 1)
            expected = ordered[first : first + neighbours].mean()
            torch.testing.assert_close(found[i, v], expected, rtol=1e-4, atol=1e-4)


def test_bank_distances_are_those_to_the_bank(target):
    bank = torch.cat((target[3], torch.full((2, 6), 50.0)))
    distances = distances_to_bank(target, bank)
    assert distances[3].max() < 1e-4
    assert distances[:3].min() > 0.1


def test_soft_weights_lie_between_one_hot_and_symmetric(target):
    distances = distances_to_batch(target)
    torch.testing.assert_close(weights_of(distances, softness=1e-3), weights_of(distances))
    torch.testing.assert_close(weights_of(distances, softness=1e4), torch.full((8, 4), 0.25), atol=1e-3, rtol=0)
    soft = weights_of(distances, softness=1.0)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(8))
    assert torch.equal(soft.argmax(dim=1), distances.argmin(dim=1))


def test_keeping_the_most_decided(target):
    distances = distances_to_batch(target)
    weights = keep_highest(weights_of(distances), decidedness(distances), 0.5)
    kept = weights.sum(dim=1) > 0
    assert int(kept.sum()) == 4
    assert float(weights.sum(dim=1).mean()) == pytest.approx(1.0)
    least = distances.sort(dim=1).values
    margin = least[:, 1] - least[:, 0]
    assert margin[kept].min() >= margin[~kept].max()


def test_disagreement_is_of_the_pairs():
    same = torch.randn(5, 1, 6)
    target = torch.cat((same, 3 * same, same, -same), dim=1)  # pairs that agree, and pairs that point the other way
    torch.testing.assert_close(disagreement(target), torch.ones(5))
    torch.testing.assert_close(disagreement(target[:, :2]), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(disagreement(target[:, 2:]), torch.full((5,), 2.0))


def test_keeping_all_or_hardly_any():
    weights, score = torch.full((4, 2), 0.5), torch.tensor([0.1, 0.4, 0.2, 0.3])
    assert torch.equal(keep_highest(weights, score, 1.0), weights)
    assert keep_highest(weights, score, 0.01).sum(dim=1).tolist() == [0, 4, 0, 0]


def test_an_image_alone_in_its_batch():
    assert torch.isfinite(distances_to_batch(torch.randn(1, 2, 4))).all()
