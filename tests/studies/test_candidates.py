"""The candidates of the study `guide`, which are plug-ins."""

import pytest
import torch
from torch import nn

from stopgrad.config import Config
from stopgrad.methods import METHODS
from stopgrad.methods.choice import choice_of
from stopgrad.methods.siamese import Siamese
from stopgrad.objective.decided import decidedness, distances_to_partner, nearest_of
from stopgrad.objective.guided import choose_partners
from stopgrad.objective.guides import nearest_views, traits_of
from stopgrad.removed import CANDIDATES
from stopgrad.studies import candidates
from stopgrad.studies.candidates import (
    NearestInMemory,
    decided_half_in_batch,
    disagreement,
    distances_to_bank,
    distances_to_batch,
    nearest_in_batch,
    nearest_in_batch_normalised,
    nearest_of_all,
    nearest_views_normalised,
    random_of_all,
    soft_weights,
)

NAMES = (
    "nearest_views_normalised", "nearest_of_all", "random_of_all", "nearest_in_batch", "nearest_in_batch_normalised",
    "decided_half_in_batch", "hard_half", "soft_in_batch", "FallingSoftness", "NearestInMemory",
    "NearestInMemoryNormalised", "NearestInMemorySkipping", "SoftInMemory",
)  # fmt: skip
TINY = {"backbone": "test_resnet", "projector_width": 16, "projection_dim": 16, "predictor_width": 8, "queue_size": 20}


def targets(num_images, num_views, generator, dim=6):
    return torch.randn(num_images, num_views, dim, generator=generator)


def config_of(name, **settings):
    return Config().replace(**TINY, method="byol", guide=f"{CANDIDATES}:{name}", **settings)


@pytest.fixture
def target(generator):
    return targets(8, 4, generator)


@pytest.mark.parametrize("source_first", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_every_candidate_trains(name, source_first, generator):
    torch.manual_seed(0)
    method = METHODS["byol"](config_of(name, source_first=source_first))
    for _ in range(2):
        loss, _ = method(torch.randn(2, 8, 3, 32, 32, generator=generator), generator)
        loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("num_views", [2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_as_many_images_and_sources_as_a_candidate_says(name, num_views, generator):
    choice = choice_of(config_of(name, views=num_views))
    weights, _ = choice(torch.randn(9, num_views, 16, generator=generator), generator)
    traits = traits_of(getattr(candidates, name))
    assert int((weights.sum(dim=1) > 0).sum()) == round(9 * traits.keep)
    assert float(weights.sum(dim=1).mean()) == pytest.approx(1.0)
    # The image that a matching leaves over has every view for a source.
    most = {"all": num_views, "pair": num_views // 2, "image": 1}[traits.sources]
    assert int(((weights > 0).sum(dim=1) > most).sum()) <= traits.needs_partners


class Plain(nn.Module):
    num_features = 8

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, 8)

    def forward(self, images):
        return self.linear(images.flatten(1))


@pytest.mark.parametrize("name", ["nearest_of_all", "random_of_all", "decided_half_in_batch"])
@pytest.mark.parametrize("targets", ["other", "mean_of_others"])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_source_first_is_the_same_without_batchnorm(name, targets, momentum, generator):
    views = torch.randn(4, 6, 3, 4, 4, generator=generator)
    losses, gradients = [], []
    for source_first in (False, True):
        torch.manual_seed(0)
        method = Siamese(
            Plain(), nn.Linear(8, 5), nn.Linear(5, 5), choice=choice_of(config_of(name, views=4)), targets=targets,
            ema_momentum=momentum, source_first=source_first,
        )  # fmt: skip
        loss, _ = method(views, torch.Generator().manual_seed(3))
        loss.backward()
        losses.append(loss)
        gradients.append(method.encoder[0].linear.weight.grad)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_paper_s_guide_is_a_special_case(target, generator):
    partners = choose_partners(8, generator)
    assert torch.equal(nearest_of(distances_to_partner(target, partners)), nearest_of_all(target, partners, None))


def test_one_of_all_is_the_closest_of_every_cross_image_pair(generator):
    target = targets(7, 4, generator)
    partners = choose_partners(7, generator)
    weights = nearest_of_all(target, partners, None)
    for a, b in enumerate(partners.tolist()):
        if a == b:
            assert weights[a].tolist() == [0.25] * 4
            continue
        pairs = [(float((target[a, v] - target[b, w]).square().sum()), v) for v in range(4) for w in range(4)]
        assert weights[a].tolist() == [float(v == min(pairs)[1]) for v in range(4)]


def test_of_two_views_one_of_all_is_one_of_each_pair(generator):
    target = targets(8, 2, generator)
    partners = choose_partners(8, generator)
    assert torch.equal(nearest_of_all(target, partners, None), nearest_views(target, partners, None))


def test_random_of_all_takes_each_view_alike(generator):
    weights = random_of_all(targets(4000, 4, generator), None, generator)
    assert torch.equal(weights.sum(dim=1), torch.ones(4000))
    assert (weights.mean(dim=0) - 0.25).abs().max() < 0.03


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


def test_distances_of_projections_with_an_offset(generator):
    target = 100 + 0.1 * torch.randn(16, 2, 32, generator=generator)
    exact = torch.cdist(target.flatten(0, 1).double(), target.flatten(0, 1).double()).square()
    image = torch.arange(16).repeat_interleave(2)
    exact[image[:, None] == image] = torch.inf
    expected = exact.amin(dim=1).unflatten(0, (16, 2)).float()
    torch.testing.assert_close(distances_to_batch(target), expected, rtol=1e-4, atol=1e-5)


def test_under_autocast_distances_are_those_without(generator):
    target, bank = targets(16, 2, generator), targets(16, 2, generator)[:, 0]
    plain = distances_to_batch(target), distances_to_bank(target, bank)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = distances_to_batch(target), distances_to_bank(target, bank)
    torch.testing.assert_close(under, plain, rtol=0, atol=0)


def test_normalised_candidates_do_not_mind_the_scale_of_a_projection(target, generator):
    scaled = target * (0.1 + torch.rand(8, 4, 1, generator=generator))
    partners = choose_partners(8, generator, mutual=False)
    for guide in (nearest_views_normalised, nearest_in_batch_normalised):
        assert torch.equal(guide(scaled, partners, None), guide(target, partners, None))


def test_soft_weights_lie_between_one_hot_and_symmetric(target):
    distances = distances_to_batch(target)
    torch.testing.assert_close(soft_weights(distances, 1e-3), soft_weights(distances, 0.0))
    torch.testing.assert_close(soft_weights(distances, 1e4), torch.full((8, 4), 0.25), atol=1e-3, rtol=0)
    soft = soft_weights(distances, 1.0)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(8))
    assert torch.equal(soft.argmax(dim=1), distances.argmin(dim=1))


def test_softness_falls_to_one_hot(generator):
    choice = choice_of(config_of("FallingSoftness", views=4))
    target = torch.randn(8, 4, 16, generator=generator)
    sharpest = [float(choice(target, generator, progress)[0].max(dim=1).values.mean()) for progress in (0, 0.5, 1)]
    assert sharpest == sorted(sharpest)
    assert sharpest[0] < 0.9
    assert sharpest[2] == 1


def test_the_memory_holds_the_latest_projections(generator):
    guide = NearestInMemory(Config().replace(queue_size=10, projection_dim=5))
    first, second = torch.randn(2, 6, 2, 5, generator=generator)
    assert torch.equal(guide(first, None, generator), nearest_in_batch(first, None, generator))
    assert torch.equal(guide.memory[:6], first[:, 0])
    guide(second, None, generator)
    assert torch.equal(guide.memory, torch.cat((second[4:, 0], first[2:, 0], second[:4, 0])))
    assert int(guide.filled) == 10
    before = guide.memory.clone()
    guide.eval()(first, None, generator)
    assert torch.equal(guide.memory, before)


def test_the_memory_is_part_of_the_state_and_begins_empty():
    choice = choice_of(config_of("NearestInMemory"))
    assert {"guide.memory", "guide.place", "guide.filled"} <= set(choice.state_dict())
    assert int(choice.guide.filled) == 0, "it remembers what it was tried out on"


def test_the_most_decided_half_of_the_batch(target):
    weights = decided_half_in_batch(target, None, None)
    margin = decidedness(distances_to_batch(target))
    kept = weights.sum(dim=1) > 0
    assert int(kept.sum()) == 4
    assert margin[kept].min() >= margin[~kept].max()


def test_disagreement_is_of_the_pairs():
    same = torch.randn(5, 1, 6)
    target = torch.cat((same, 3 * same, same, -same), dim=1)  # pairs that agree, and pairs that point the other way
    torch.testing.assert_close(disagreement(target), torch.ones(5))
    torch.testing.assert_close(disagreement(target[:, :2]), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(disagreement(target[:, 2:]), torch.full((5,), 2.0))


def test_an_image_alone_in_its_batch():
    assert torch.isfinite(distances_to_batch(torch.randn(1, 2, 4))).all()
