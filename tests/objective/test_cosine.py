import pytest
import torch
import torch.nn.functional as F

from stopgrad import negative_cosine


def test_equals_minus_the_cosine(generator):
    p, z = torch.randn(5, 7, generator=generator), torch.randn(5, 7, generator=generator)
    torch.testing.assert_close(negative_cosine(p, z), -F.cosine_similarity(p, z, dim=1))


def test_ends_of_the_range(generator):
    p = torch.randn(4, 3, generator=generator)
    torch.testing.assert_close(negative_cosine(p, 2 * p), -torch.ones(4))
    torch.testing.assert_close(negative_cosine(p, -p), torch.ones(4))
    assert negative_cosine(p, torch.zeros_like(p)).abs().max() == 0


@pytest.mark.parametrize("length", [0.0, 1e-20])
def test_a_vector_of_no_length_gets_no_gradient(generator, length):
    """Where projections collapse to zero a run goes on, to be told of; torch's normalize gives a gradient of 1e12."""
    p = torch.randn(5, 7, generator=generator)
    p[2] *= length
    p.requires_grad_()
    negative_cosine(p, torch.randn(5, 7, generator=generator)).sum().backward()
    assert p.grad[2].abs().max() == 0
    assert 0 < p.grad.abs().max() < 10


def test_no_gradient_reaches_the_target(generator):
    p = torch.randn(5, 7, generator=generator, requires_grad=True)
    z = torch.randn(5, 7, generator=generator, requires_grad=True)
    negative_cosine(p, z).sum().backward()
    assert p.grad.abs().sum() > 0
    assert z.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(generator, dtype):
    p, z = (torch.randn(5, 64, generator=generator).to(dtype) for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = negative_cosine(p, z)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, negative_cosine(p.float(), z.float()), rtol=0, atol=0)


def test_float64_stays():
    p = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    z = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: negative_cosine(x, z), (p,))
