import math

import pytest
import torch
import torch.nn.functional as F

from stopgrad.objective.contrastive import info_nce, nt_xent


def by_hand(first, second, temperature):
    """Equation 1 of SimCLR in plain loops."""
    views = [F.normalize(z, dim=0) for z in (*first, *second)]
    num, losses = len(first), []
    for i, view in enumerate(views):
        scores = [math.exp(float(view @ other) / temperature) for other in views]
        losses.append(-math.log(scores[(i + num) % (2 * num)] / (sum(scores) - scores[i])))
    return sum(losses) / len(losses)


def test_nt_xent_equals_the_equation(generator):
    first, second = torch.randn(2, 5, 7, generator=generator)
    assert float(nt_xent(first, second, temperature=0.3)) == pytest.approx(by_hand(first, second, 0.3), rel=1e-5)


def test_nt_xent_is_symmetric_and_knows_no_scale(generator):
    first, second = torch.randn(2, 5, 7, generator=generator)
    loss = nt_xent(first, second, temperature=0.5)
    torch.testing.assert_close(nt_xent(second, 3 * first, temperature=0.5), loss)


def test_info_nce_equals_the_equation(generator):
    prediction, target = torch.randn(2, 4, 6, generator=generator)
    negatives = F.normalize(torch.randn(9, 6, generator=generator), dim=1)
    p, z = F.normalize(prediction, dim=1), F.normalize(target, dim=1)
    own = ((p * z).sum(dim=1) / 0.2).exp()
    others = (p @ negatives.T / 0.2).exp().sum(dim=1)
    expected = -(own / (own + others)).log().mean()
    torch.testing.assert_close(info_nce(prediction, target, negatives, temperature=0.2), expected)


def test_no_gradient_reaches_target_or_negatives(generator):
    prediction, target, negatives = (torch.randn(4, 6, generator=generator, requires_grad=True) for _ in range(3))
    info_nce(prediction, target, negatives, temperature=0.2).backward()
    assert prediction.grad is not None
    assert target.grad is None
    assert negatives.grad is None
