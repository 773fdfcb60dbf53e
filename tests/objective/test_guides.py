import math

import pytest
import torch

from stopgrad.objective.guided import choose_partners
from stopgrad.objective.guides import (
    GUIDES,
    Traits,
    farthest_views,
    has_traits,
    nearest_views,
    random_views,
    symmetric,
    traits_of,
)
from stopgrad.settings import GUIDE_NAMES, PARTNERED_GUIDES


def targets(num_images, num_views, generator, dim=6):
    return torch.randn(num_images, num_views, dim, generator=generator)


def chosen_by_hand(target, partners, pick):
    """The paper's rule in plain loops: weights [image][view]."""
    num_images, num_views = target.shape[:2]
    weights = torch.zeros(num_images, num_views)
    offset = num_views - 2
    for a in range(num_images):
        b = int(partners[a])
        if num_views == 2 and a == b:
            weights[a] = 0.5
        if num_views == 2 and a >= b:
            continue
        distances = {
            (s, t): math.dist(target[a, s].tolist(), target[b, offset + t].tolist()) for s in (0, 1) for t in (0, 1)
        }
        s, t = pick(distances, key=distances.get)
        weights[a, s] += 2 / num_views
        weights[b, offset + t] += 2 / num_views
    return weights


def test_names_agree_with_the_config():
    assert tuple(GUIDES) == GUIDE_NAMES
    assert tuple(name for name, guide in GUIDES.items() if traits_of(guide).needs_partners) == PARTNERED_GUIDES


@pytest.mark.parametrize("num_images", [2, 7, 8])
@pytest.mark.parametrize("num_views", [2, 4])
@pytest.mark.parametrize(("guide", "pick"), [(nearest_views, min), (farthest_views, max)])
def test_equals_the_rule_in_plain_loops(generator, num_images, num_views, guide, pick):
    target = targets(num_images, num_views, generator)
    partners = choose_partners(num_images, generator, mutual=num_views == 2)
    torch.testing.assert_close(guide(target, partners, None), chosen_by_hand(target, partners, pick))


@pytest.mark.parametrize("num_views", [2, 4])
@pytest.mark.parametrize("name", GUIDES)
def test_weights_sum_to_one_an_image(generator, name, num_views):
    target = targets(9, num_views, generator)
    partners = choose_partners(9, generator, mutual=num_views == 2)
    weights = GUIDES[name](target, partners, generator)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(9))
    assert not weights.requires_grad


@pytest.mark.parametrize("num_views", [2, 4])
def test_permuting_the_batch_permutes_the_weights(generator, num_views):
    target = targets(8, num_views, generator)
    partners = choose_partners(8, generator, mutual=num_views == 2)
    order = torch.randperm(8, generator=generator)
    place = torch.empty_like(order)
    place[order] = torch.arange(8)
    permuted = nearest_views(target[order], place[partners[order]], None)
    torch.testing.assert_close(permuted, nearest_views(target, partners, None)[order])


def test_swapping_two_views_swaps_their_weights(generator):
    target = targets(8, 2, generator)
    partners = choose_partners(8, generator)
    torch.testing.assert_close(
        nearest_views(target.flip(1), partners, None), nearest_views(target, partners, None).flip(1)
    )


def test_four_views_of_one_image_swap_alone(generator):
    target = targets(8, 4, generator)
    partners = choose_partners(8, generator, mutual=False)
    swapped = target.clone()
    swapped[3, :2] = target[3, :2].flip(0)
    expected = nearest_views(target, partners, None)
    expected[3, :2] = expected[3, :2].flip(0)
    torch.testing.assert_close(nearest_views(swapped, partners, None), expected)


def test_ties_go_to_the_first(generator):
    target = torch.zeros(2, 2, 3)
    weights = nearest_views(target, torch.tensor([1, 0]), None)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


def test_mutual_partners_share_one_choice():
    # The nearest pair is b's second view and a's first: both become sources.
    target = torch.tensor([[[0.0], [9.0]], [[5.0], [1.0]]])
    torch.testing.assert_close(
        nearest_views(target, torch.tensor([1, 0]), None), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    )


def test_the_image_left_over_stays_symmetric(generator):
    partners = choose_partners(5, generator)
    alone = int((partners == torch.arange(5)).nonzero())
    weights = nearest_views(targets(5, 2, generator), partners, None)
    torch.testing.assert_close(weights[alone], torch.tensor([0.5, 0.5]))


def test_near_ties_are_decided_in_float32():
    # In bf16 arithmetic 256 + 1 and 256 + 0.5 are alike; in float32 the second pair is nearer.
    target = torch.tensor([[[256.0], [-300.0]], [[257.0], [256.5]]]).bfloat16()
    target = target.float().bfloat16()
    weights = nearest_views(target, torch.tensor([1, 0]), None)
    by_float32 = nearest_views(target.float(), torch.tensor([1, 0]), None)
    torch.testing.assert_close(weights, by_float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(nearest_views(target, torch.tensor([1, 0]), None), by_float32)


def test_distances_stay_float32_under_autocast(generator):
    target = 100 + 0.01 * targets(64, 2, generator)
    partners = choose_partners(64, generator)
    plain = nearest_views(target, partners, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(nearest_views(target, partners, None), plain)


def test_random_views_is_a_fair_coin_of_its_generator(generator):
    target = targets(4000, 2, generator)
    weights = random_views(target, None, torch.Generator().manual_seed(1))
    again = random_views(target, None, torch.Generator().manual_seed(1))
    torch.testing.assert_close(weights, again)
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    # Five standard errors.
    assert abs(weights[:, 0].mean() - 0.5) < 5 * 0.5 / math.sqrt(4000)


def test_symmetric_is_even():
    assert symmetric(torch.zeros(3, 4, 2)).unique().tolist() == [0.25]


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 1, 2)])
def test_odd_numbers_of_views_are_refused(shape):
    with pytest.raises(ValueError, match="even number of views"):
        symmetric(torch.zeros(shape))


def test_partnered_guides_say_what_they_need():
    with pytest.raises(ValueError, match="needs `partners`"):
        nearest_views(torch.zeros(4, 2, 3), None, None)
    with pytest.raises(ValueError, match=r"2 .*or 4"):
        nearest_views(torch.zeros(4, 6, 3), torch.arange(4), None)


def test_what_a_guide_needs_and_gives_has_defaults():
    def plain(target, partners, generator): ...

    assert traits_of(plain) == Traits(needs_partners=False, sources="all", keep=1.0)
    assert traits_of(has_traits(needs_partners=True, sources="image", keep=0.5)(plain)) == Traits(True, "image", 0.5)
    for name, value in (("sources", "views"), ("sources", 2), ("keep", 0.0), ("keep", "half")):
        with pytest.raises(ValueError, match=f"{name} = {value!r}: must be"):
            traits_of(type("Other", (), {name: value}))
