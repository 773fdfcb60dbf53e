import math

import pytest
import torch

from stopgrad.metrics.collapse import (
    alignment,
    dead_dimensions,
    effective_rank,
    feature_std,
    first_component_share,
    mean_squared_distance,
    uniformity,
)


def isotropic(generator, num=4000, dim=16):
    return torch.randn(num, dim, generator=generator)


def constant(generator, noise=0.0):
    point = torch.randn(1, 16, generator=generator)
    return point + noise * torch.randn(500, 16, generator=generator)


def two_opposite_points(generator):
    point = torch.randn(1, 16, generator=generator)
    sign = torch.where(torch.rand(500, 1, generator=generator) < 0.5, -1.0, 1.0)
    return sign * point


def test_healthy_features(generator):
    features = isotropic(generator)
    assert feature_std(features) == pytest.approx(1, abs=0.02)
    assert effective_rank(features) == pytest.approx(16, abs=0.2)
    # The potential of uniform directions in 16 dimensions, near its lower bound exp(-4).
    assert -4 < uniformity(features) < -3.5


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_a_constant(generator, noise):
    features = constant(generator, noise)
    assert feature_std(features) < 1e-4
    assert effective_rank(features) == 1
    assert uniformity(features) == pytest.approx(0, abs=1e-6)


def test_a_rank_one_collapse_is_seen_by_the_rank_alone(generator):
    features = two_opposite_points(generator)
    assert feature_std(features) > 0.9 * feature_std(isotropic(generator)) * math.sqrt(8 / 9) * 0.8
    assert effective_rank(features) == pytest.approx(1, abs=1e-3)


def test_a_constant_of_zeros():
    assert feature_std(torch.zeros(5, 3)) == 0
    assert effective_rank(torch.zeros(5, 3)) == 1


def test_rank_is_bounded_by_the_number_of_images(generator):
    assert effective_rank(torch.randn(5, 64, generator=generator)) <= 4 + 1e-6


def test_rank_counts_equal_directions(generator):
    basis = torch.eye(16)[:6]
    features = torch.cat([basis, -basis]).repeat(20, 1)
    assert effective_rank(features) == pytest.approx(6, abs=1e-3)


def test_measures_ignore_the_scale(generator):
    features = isotropic(generator, num=200)
    scaled = features * torch.rand(200, 1, generator=generator).add(0.5)
    for measure in (feature_std, effective_rank, uniformity, mean_squared_distance):
        assert measure(features) == pytest.approx(measure(scaled), rel=1e-4)


def test_alignment(generator):
    features = isotropic(generator, num=50)
    assert alignment(features, 3 * features) == pytest.approx(0, abs=1e-6)
    assert alignment(features, -features) == pytest.approx(4, abs=1e-5)


def test_uniformity_and_mean_distance_against_all_pairs(generator):
    features = torch.nn.functional.normalize(isotropic(generator, num=60), dim=1)
    squared = torch.cdist(features.double(), features.double()).square()
    pairs = ~torch.eye(60, dtype=torch.bool)
    assert uniformity(features) == pytest.approx((-2 * squared[pairs]).exp().mean().log().item(), rel=1e-4)
    assert mean_squared_distance(features) == pytest.approx(squared[pairs].mean().item(), rel=1e-4)


def test_dead_dimensions(generator):
    features = isotropic(generator, num=300)
    assert not dead_dimensions(features).any()
    features[:, 3] = 0
    features[:, 5] = 7
    features[:, 8] *= 1e-3
    assert dead_dimensions(features).nonzero().flatten().tolist() == [3, 5, 8]
    assert torch.equal(dead_dimensions(1e-6 * features), dead_dimensions(features))


def test_one_loud_dimension_does_not_kill_the_others(generator):
    features = isotropic(generator, num=300)
    features[:, 0] *= 10
    assert not dead_dimensions(features).any()


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_all_dimensions_of_a_constant_are_dead(generator, noise):
    assert dead_dimensions(constant(generator, noise)).all()
    assert dead_dimensions(torch.zeros(5, 3)).all()


def test_first_component(generator):
    assert first_component_share(isotropic(generator)) == pytest.approx(1 / 16, abs=0.01)
    assert first_component_share(two_opposite_points(generator)) == pytest.approx(1)
    assert first_component_share(constant(generator)) == 1


@pytest.mark.parametrize(
    "measure",
    [feature_std, effective_rank, uniformity, mean_squared_distance, dead_dimensions, first_component_share],
)
def test_one_image_is_refused(measure):
    with pytest.raises(ValueError, match="at least 2 images"):
        measure(torch.randn(1, 4))
