import pytest
import torch
import torch.nn.functional as F

from stopgrad.metrics.neighbours import nearest_neighbours, neighbour_blocks


@pytest.fixture
def bank(generator):
    return torch.randn(40, 6, generator=generator)


@pytest.mark.parametrize("budget", [1, 5000, 2**28])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_equals_all_cosines_sorted(bank, generator, k, budget):
    queries = torch.randn(9, 6, generator=generator)
    cosines, places = nearest_neighbours(bank, queries, k, memory_budget_bytes=budget)
    expected, order = (F.normalize(queries) @ F.normalize(bank).T).sort(dim=1, descending=True)
    torch.testing.assert_close(cosines, expected[:, :k])
    assert torch.equal(places, order[:, :k])


@pytest.mark.parametrize("budget", [1, 2**28])
def test_a_query_in_the_bank_is_left_out(bank, budget):
    own = torch.tensor([3, 39, 0])
    cosines, places = nearest_neighbours(bank, bank[own], 39, own=own, memory_budget_bytes=budget)
    assert torch.isfinite(cosines).all()
    for row, place in enumerate(own.tolist()):
        assert sorted(places[row].tolist()) == [i for i in range(40) if i != place]


@pytest.mark.parametrize(("k", "own"), [(0, None), (41, None), (40, torch.tensor([0]))])
def test_k_out_of_range(bank, k, own):
    with pytest.raises(ValueError, match="must be from 1 to the size of the bank"):
        nearest_neighbours(bank, bank[:1], k, own=own)


def test_what_the_caller_makes_of_a_block_is_within_the_bound(generator):
    bank, queries = torch.randn(20, 4, generator=generator), torch.randn(3000, 4, generator=generator)
    budget = 2**20

    def largest_block(numbers_beside):
        blocks = neighbour_blocks(bank, queries, 5, numbers_beside=numbers_beside, memory_budget_bytes=budget)
        return max(rows.stop - rows.start for rows, _, _ in blocks)

    assert 4 * 1000 * largest_block(1000) <= budget < 4 * 1000 * largest_block(0)
