"""Multi-crop: local views against a formula written out, image by image, in NumPy."""

import numpy as np
import pytest
import torch

from stopgrad.objective.guided import (
    GuidedStopGradientLoss,
    guided_loss,
    local_loss,
    multi_crop_loss,
    share_of_views,
)
from stopgrad.objective.guides import nearest_views, random_views, symmetric

IMAGES, DIM, LOCAL = 7, 5, 3
PARTNERS = torch.tensor([1, 0, 3, 2, 5, 4, 6])


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_hand(prediction, target, weights, local, targets):
    """The formula of the docstring with nothing simplified."""
    losses = []
    for p, z, w, q in zip(prediction, target, weights, local, strict=True):
        toward = [z[v ^ 1] if targets == "other" else np.delete(z, v, axis=0).mean(axis=0) for v in range(len(z))]
        sources = sum(w > 0)
        of_views = sources * sum(w[v] * -cosine(p[v], toward[v]) for v in range(len(z)))
        of_local = sum(w[v] * -cosine(one, toward[v]) for one in q for v in range(len(z)))
        losses.append((of_views + of_local) / (sources + len(q)))
    return np.mean(losses)


@pytest.fixture
def drawn(generator):
    def draw(num_views):
        shapes = ((IMAGES, num_views, DIM), (IMAGES, num_views, DIM), (IMAGES, LOCAL, DIM))
        return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]

    return draw


def weights_of(kind, target):
    if kind == "symmetric":
        return symmetric(target)
    if kind == "nearest_views":
        partners = PARTNERS if target.shape[1] == 2 else torch.arange(IMAGES).roll(1)
        return nearest_views(target, partners)
    if kind == "random_views":
        return random_views(target)
    if kind == "soft":
        return target.detach().norm(dim=2).softmax(dim=1)
    # Some images give no gradient, others give more.
    return random_views(target) * torch.tensor([7 / 3, 0, 7 / 3, 0, 7 / 3, 0, 0])[:, None]


@pytest.mark.parametrize("kind", ["symmetric", "nearest_views", "random_views", "soft", "some images"])
@pytest.mark.parametrize(("num_views", "targets"), [(2, "other"), (4, "other"), (4, "mean_of_others")])
def test_the_loss_is_the_formula(drawn, kind, num_views, targets):
    prediction, target, local = drawn(num_views)
    weights = weights_of(kind, target.detach())
    loss = multi_crop_loss(prediction, target, weights, local, targets)
    numbers = (x.detach().double().numpy() for x in (prediction, target, weights, local))
    assert loss.item() == pytest.approx(by_hand(*numbers, targets), abs=1e-6)


@pytest.mark.parametrize("kind", ["symmetric", "nearest_views"])
def test_the_gradient_flows_through_predictions_alone(drawn, kind):
    prediction, target, local = drawn(2)
    weights = weights_of(kind, target.detach())
    multi_crop_loss(prediction, target, weights, local).backward()
    assert target.grad is None
    assert (local.grad.norm(dim=2) > 0).all()
    assert torch.equal(prediction.grad.norm(dim=2) > 0, weights > 0)


def test_each_prediction_counts_alike(drawn):
    """Predictions equal to their targets, all but one: whichever that is, the loss is the same."""
    target = drawn(2)[1].detach()
    for weights, sources in ((symmetric(target), [0, 1]), (torch.tensor([[1.0, 0.0]]).repeat(IMAGES, 1), [0])):
        # One direction for both targets, so that all that a local view is pulled toward agrees.
        same = target[:, :1].expand(-1, 2, -1)
        losses = []
        for which in range(len(sources) + LOCAL):
            all_of = same[:, :1].repeat(1, len(sources) + LOCAL, 1)
            all_of[:, which] *= -1
            prediction = same.clone()
            prediction[:, sources] = all_of[:, : len(sources)]
            losses.append(float(multi_crop_loss(prediction, same, weights, all_of[:, len(sources) :])))
        assert losses == pytest.approx([-1 + 2 / (len(sources) + LOCAL)] * len(losses), abs=1e-6)


def test_with_a_guide_local_views_see_the_guided_target_alone(drawn):
    _, target, local = drawn(2)
    weights = torch.tensor([[1.0, 0.0]]).repeat(IMAGES, 1)
    before = local_loss(local, target, weights)
    with torch.no_grad():
        target[:, 0] = torch.randn(IMAGES, DIM)  # the source's own projection
    assert torch.equal(local_loss(local, target, weights), before)


def test_the_shares_of_views():
    weights = torch.tensor([[0.5, 0.5], [0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(share_of_views(weights, 4), torch.tensor([2 / 6, 1 / 5, 0.0]))


def test_half_precision_is_lifted(drawn):
    prediction, target, local = (x.detach() for x in drawn(2))
    weights = symmetric(target)
    half = multi_crop_loss(prediction, target, weights, local.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, multi_crop_loss(prediction, target, weights, local), atol=5e-3, rtol=0)


def test_the_module_takes_local_views(drawn):
    prediction, target, local = drawn(2)
    criterion = GuidedStopGradientLoss()
    weights = criterion.weights(target, PARTNERS)
    assert torch.equal(criterion(prediction, target, PARTNERS), guided_loss(prediction, target, weights))
    expected = multi_crop_loss(prediction, target, weights, local)
    assert torch.equal(criterion(prediction, target, PARTNERS, local=local), expected)
