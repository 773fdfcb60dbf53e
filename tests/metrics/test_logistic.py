import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import stopgrad.metrics.logistic as logistic
from stopgrad.metrics.logistic import design_of, fit_logistic, log_probabilities, predict_logistic, standard_of


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)


def fitted(features, labels, l2, **settings):
    design = design_of(features, standard_of(features))
    num_classes = int(labels.max()) + 1
    return design, fit_logistic(design.rows, labels, num_classes=num_classes, l2=l2, moment=design.moment, **settings)


@pytest.mark.parametrize("l2", [1e3, 10.0, 1.0, 0.1])
def test_agrees_with_scikit_learn(digits, l2):
    features, labels = digits
    design, fit = fitted(features, labels, l2, tolerance=1e-7)
    assert fit.converged
    # The constant pixels stay constant.
    deviation = features.std(dim=0, unbiased=False)
    scale = torch.where(deviation > 0, deviation, 1)
    standardised = ((features - features.mean(dim=0)) / scale).double().numpy()
    theirs = LogisticRegression(C=1 / l2, tol=1e-8, max_iter=5000).fit(standardised, labels.numpy())
    assert np.abs(fit.weight.numpy() - theirs.coef_).max() < 1e-3 * np.abs(theirs.coef_).max()
    probabilities = log_probabilities(design.rows, fit).exp().numpy()
    assert np.abs(probabilities - theirs.predict_proba(standardised)).max() < 1e-3
    assert (predict_logistic(features, design, fit).numpy() == theirs.predict(standardised)).all()


def test_fewer_images_than_dimensions(generator):
    """The rows are fewer coordinates then, and the classifier is the same."""
    features = torch.randn(30, 200, generator=generator)
    labels = torch.arange(30) % 3
    design, fit = fitted(features, labels, 1.0, tolerance=1e-7)
    assert design.rows.shape == (30, 30)
    standardised = ((features - features.mean(dim=0)) / features.std(dim=0, unbiased=False)).double().numpy()
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(standardised, labels.numpy())
    weight = (fit.weight @ design.basis.T).numpy()
    assert np.abs(weight - theirs.coef_).max() < 1e-3 * np.abs(theirs.coef_).max()
    others = torch.randn(50, 200, generator=generator)
    standardised = ((others - features.mean(dim=0)) / features.std(dim=0, unbiased=False)).double().numpy()
    assert (predict_logistic(others, design, fit).numpy() == theirs.predict(standardised)).all()


def test_where_it_starts_makes_no_difference(digits):
    features, labels = digits
    _, cold = fitted(features, labels, 1.0, tolerance=1e-7)
    _, strong = fitted(features, labels, 100.0)
    _, warm = fitted(features, labels, 1.0, tolerance=1e-7, start=strong)
    torch.testing.assert_close(warm.weight, cold.weight, rtol=0, atol=1e-3)
    assert warm.loss == pytest.approx(cold.loss, abs=1e-9)


def test_memory_and_precision_make_no_difference(digits, monkeypatch):
    features, labels = digits
    design, fit = fitted(features, labels, 10.0)
    monkeypatch.setattr(logistic, "BLOCK_BYTES", 50_000)
    _, blocked = fitted(features, labels, 10.0)
    torch.testing.assert_close(blocked.weight, fit.weight, rtol=0, atol=1e-6)
    monkeypatch.setattr(logistic, "DOUBLE_BYTES", 0)
    single, narrow = fitted(features, labels, 10.0)
    assert single.rows.dtype is torch.float32
    assert narrow.converged
    torch.testing.assert_close(narrow.weight, fit.weight, rtol=0, atol=5e-3)
    same = predict_logistic(features, single, narrow) == predict_logistic(features, design, fit)
    assert same.double().mean() > 0.999


def test_classes_that_come_apart(generator):
    """The optimum without a penalty is at infinity; with a small one it is far out, and found."""
    labels = torch.arange(60) % 3
    features = 10 * torch.eye(3)[labels] + 0.1 * torch.randn(60, 3, generator=generator)
    for l2 in (1.0, 1e-2, 1e-4):
        design, fit = fitted(features, labels, l2)
        assert fit.converged
        assert torch.equal(predict_logistic(features, design, fit), labels)


def test_it_says_when_it_gave_up(digits):
    _, fit = fitted(*digits, 1e-3, max_iterations=3)
    assert not fit.converged
    assert fit.gradient > 1e-5


def test_constant_dimensions_and_noise_of_rounding_are_no_features(generator):
    features = torch.randn(100, 3, generator=generator)
    labels = (features[:, 0] > 0).long()
    noise = 1000 * (1 + 2e-8 * torch.randn(100, 2, generator=generator))
    more = torch.cat([features, torch.full((100, 1), 7.0), noise], dim=1)
    _, fit = fitted(features, labels, 1.0, tolerance=1e-7)
    _, wide = fitted(more, labels, 1.0, tolerance=1e-7)
    torch.testing.assert_close(wide.weight[:, :3], fit.weight, rtol=0, atol=1e-4)
    assert wide.weight[:, 3:].abs().max() < 1e-3


def test_features_far_from_zero(generator):
    """A mean of a million deviations leaves little of float32, and a mean of a thousand enough."""
    features = torch.randn(200, 4, generator=generator)
    labels = (features[:, 0] > 0).long()
    _, near = fitted(features, labels, 1.0)
    _, far = fitted(features + 1000, labels, 1.0)
    torch.testing.assert_close(far.weight, near.weight, rtol=0, atol=1e-2)


def test_all_features_alike():
    design, fit = fitted(torch.ones(12, 5), torch.tensor([0, 1, 1] * 4), 1.0)
    assert fit.converged
    # What is left is how frequent the classes are.
    assert predict_logistic(torch.ones(2, 5), design, fit).tolist() == [1, 1]
    torch.testing.assert_close(log_probabilities(design.rows[:1], fit).exp()[0].float(), torch.tensor([1 / 3, 2 / 3]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"l2": 0.0}, "l2 = 0.0: must be above 0"), ({"num_classes": 11}, "0..10"), ({"num_classes": 9}, "0..8")],
)
def test_bad_arguments(digits, settings, message):
    features, labels = digits
    design = design_of(features, standard_of(features))
    with pytest.raises(ValueError, match=message):
        fit_logistic(design.rows, labels, **{"num_classes": 10, "l2": 1.0, "moment": design.moment, **settings})


def test_features_that_are_not_finite(digits):
    features, labels = digits
    broken = features.clone()
    broken[3, 4] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        fitted(broken, labels, 1.0)
