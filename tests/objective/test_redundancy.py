import pytest
import torch

from stopgrad.objective.redundancy import barlow_twins, vicreg


def orthogonal(num_images, dim):
    """Uncorrelated dimensions of deviation 1."""
    q, _ = torch.linalg.qr(torch.randn(num_images, dim + 1, generator=torch.Generator().manual_seed(0)))
    centred = q - q.mean(dim=0)
    basis, _ = torch.linalg.qr(centred)
    return basis[:, :dim] * (num_images - 1) ** 0.5


def test_barlow_twins_is_least_for_equal_views_of_uncorrelated_dimensions():
    z = orthogonal(64, 4)
    z = z - z.mean(dim=0)
    assert float(barlow_twins(z, z)) < 0.05
    assert float(barlow_twins(z, -z)) > 15
    assert float(barlow_twins(z, 5 * z + 3)) == pytest.approx(float(barlow_twins(z, z)), abs=1e-4)


def test_barlow_twins_weighs_correlated_dimensions(generator):
    z = torch.randn(64, 1, generator=generator).expand(64, 3)
    # The diagonal is 1, and so is each of the six others.
    assert float(barlow_twins(z, z, off_diagonal=0.5)) == pytest.approx(3.0, abs=1e-3)


def test_vicreg_terms(generator):
    z = torch.randn(512, 6, generator=generator)
    z = (z - z.mean(dim=0)) / z.std(dim=0)
    assert float(vicreg(z, z, covariance=0.0)) < 0.01
    assert float(vicreg(z, z + 2, variance=0.0, covariance=0.0)) == pytest.approx(25 * 4, rel=1e-4)
    # All images alike: each dimension's deviation is sqrt(1e-4) = 0.01.
    constant = torch.ones(8, 6)
    assert float(vicreg(constant, constant)) == pytest.approx(25 * 0.99, rel=1e-3)
    line = z[:, :1].expand(512, 6)
    assert float(vicreg(line, line, variance=0.0)) == pytest.approx(2 * 5.0, rel=1e-3)
