import pytest
import torch
import torch.nn.functional as F

from stopgrad import GuidedStopGradientLoss, choose_partners, random_permutation
from stopgrad.objective.guided import guided_loss, source_views


def pair(num_images, num_views, generator, dim=8):
    prediction = torch.randn(num_images, num_views, dim, generator=generator, requires_grad=True)
    target = torch.randn(num_images, num_views, dim, generator=generator, requires_grad=True)
    return prediction, target


def gradient(loss, of):
    return torch.autograd.grad(loss, of)[0]


def test_half_and_half_is_simsiam(generator):
    p, z = pair(6, 2, generator)
    simsiam = -(F.cosine_similarity(p[:, 0], z[:, 1].detach()) + F.cosine_similarity(p[:, 1], z[:, 0].detach())) / 2
    ours = GuidedStopGradientLoss("symmetric")(p, z)
    torch.testing.assert_close(ours, simsiam.mean())
    torch.testing.assert_close(gradient(ours, p), gradient(simsiam.mean(), p))


def test_one_hot_is_guided_stop_gradient(generator):
    p, z = pair(6, 2, generator)
    partners = choose_partners(6, generator)
    criterion = GuidedStopGradientLoss()
    source = criterion.weights(z, partners).argmax(dim=1)
    row = torch.arange(6)
    by_hand = -F.cosine_similarity(p[row, source], z[row, 1 - source].detach()).mean()
    ours = criterion(p, z, partners)
    torch.testing.assert_close(ours, by_hand)
    torch.testing.assert_close(gradient(ours, p), gradient(by_hand, p))


def test_four_views_are_half_a_of_each_image_of_a_pair(generator):
    p, z = pair(5, 4, generator)
    partners = torch.tensor([1, 2, 3, 4, 0])
    by_hand = torch.zeros(())
    for a in range(5):
        b = int(partners[a])
        distances = [(z[a, s] - z[b, 2 + t]).norm().item() for s in (0, 1) for t in (0, 1)]
        s, t = divmod(min(range(4), key=distances.__getitem__), 2)
        by_hand = by_hand - F.cosine_similarity(p[a, s], z[a, 1 - s].detach(), dim=0) / 2
        by_hand = by_hand - F.cosine_similarity(p[b, 2 + t], z[b, 3 - t].detach(), dim=0) / 2
    ours = GuidedStopGradientLoss()(p, z, partners)
    torch.testing.assert_close(ours, by_hand / 5)
    torch.testing.assert_close(gradient(ours, p), gradient(by_hand / 5, p))


@pytest.mark.parametrize("guide", ["symmetric", "nearest_views", "random_views", "farthest_views"])
@pytest.mark.parametrize("num_views", [2, 4])
def test_no_gradient_reaches_targets(generator, guide, num_views):
    p, z = pair(6, num_views, generator)
    GuidedStopGradientLoss(guide, generator=generator)(p, z).backward()
    assert z.grad is None
    assert p.grad.abs().sum() > 0


def test_only_sources_get_a_gradient(generator):
    p, z = pair(6, 2, generator)
    partners = choose_partners(6, generator)
    criterion = GuidedStopGradientLoss()
    criterion(p, z, partners).backward()
    has_gradient = p.grad.abs().sum(dim=2) > 0
    assert torch.equal(has_gradient, criterion.weights(z, partners) > 0)


def test_permuting_the_batch_changes_nothing_but_the_order(generator):
    p, z = pair(8, 2, generator)
    partners = choose_partners(8, generator)
    order = torch.randperm(8, generator=generator)
    place = torch.empty_like(order)
    place[order] = torch.arange(8)
    criterion = GuidedStopGradientLoss()
    loss = criterion(p, z, partners)
    permuted = criterion(p[order], z[order], place[partners[order]])
    torch.testing.assert_close(loss, permuted)
    torch.testing.assert_close(gradient(loss, p), gradient(permuted, p))


def test_swapping_views_leaves_the_loss(generator):
    p, z = pair(8, 2, generator)
    partners = choose_partners(8, generator)
    criterion = GuidedStopGradientLoss()
    torch.testing.assert_close(criterion(p, z, partners), criterion(p.flip(1), z.flip(1), partners))


def test_soft_weights_are_linear(generator):
    p, z = pair(4, 2, generator)
    first, second = torch.tensor([[1.0, 0.0]] * 4), torch.tensor([[0.0, 1.0]] * 4)
    mixed = guided_loss(p, z, 0.3 * first + 0.7 * second)
    torch.testing.assert_close(mixed, 0.3 * guided_loss(p, z, first) + 0.7 * guided_loss(p, z, second))


def test_generator_decides_the_partners(generator):
    p, z = pair(16, 2, generator)
    losses = [GuidedStopGradientLoss(generator=torch.Generator().manual_seed(seed))(p, z).item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("num_images", [1, 2, 3, 8, 9, 100])
def test_mutual_partners_are_a_perfect_matching(num_images, generator):
    partners = choose_partners(num_images, generator)
    index = torch.arange(num_images)
    assert torch.equal(partners[partners], index)
    assert int((partners == index).sum()) == num_images % 2


@pytest.mark.parametrize("num_images", [2, 3, 8, 9, 100])
def test_one_way_partners_have_no_fixed_point(num_images, generator):
    for _ in range(10):
        partners = choose_partners(num_images, generator, mutual=False)
        assert torch.equal(partners.sort().values, torch.arange(num_images))
        assert not (partners == torch.arange(num_images)).any()


def test_mutual_partners_are_uniform():
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(4)
    for _ in range(3000):
        counts[choose_partners(4, generator)[0]] += 1
    assert counts[0] == 0
    # Five standard errors of a share of a third.
    assert (counts[1:] / 3000 - 1 / 3).abs().max() < 5 * (2 / 9 / 3000) ** 0.5


def test_the_authors_permutation_may_meet_itself():
    generator = torch.Generator().manual_seed(0)
    fixed = sum(int((random_permutation(10, generator) == torch.arange(10)).sum()) for _ in range(100))
    assert 50 < fixed < 150


def test_too_few_images_for_partners():
    with pytest.raises(ValueError, match="too few"):
        choose_partners(0)
    with pytest.raises(ValueError, match="too few"):
        choose_partners(1, mutual=False)


@pytest.mark.parametrize(
    ("num_views", "partners", "message"),
    [
        (2, [1, 2, 3, 0], "mutual"),
        (2, [0, 1, 3, 2], "perfect matching"),
        (2, [1, 1, 2, 3], "permutation"),
        (4, [0, 0, 1, 2], "permutation"),
        (4, [1, 2, 3, 4], "permutation"),
    ],
)
def test_partners_of_another_kind_are_refused(num_views, partners, message, generator):
    p, z = pair(4, num_views, generator)
    with pytest.raises(ValueError, match=message):
        GuidedStopGradientLoss()(p, z, torch.tensor(partners))


def test_an_odd_batch_has_one_fixed_point_not_three(generator):
    p, z = pair(3, 2, generator)
    GuidedStopGradientLoss()(p, z, torch.tensor([1, 0, 2]))
    with pytest.raises(ValueError, match="perfect matching of 3 leaves 1"):
        GuidedStopGradientLoss()(p, z, torch.arange(3))


def test_unknown_guide_names_the_valid_ones():
    with pytest.raises(ValueError, match="nearest_views"):
        GuidedStopGradientLoss("nearest")


def test_prints_its_guide():
    assert "nearest_views" in repr(GuidedStopGradientLoss())


def test_source_views_of_one_hot_and_even_weights():
    weights = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    assert source_views(weights).tolist() == [[1], [0], [0]]
    assert source_views(torch.tensor([[0.0, 0.5, 0.5, 0.0]])).tolist() == [[1, 2]]
