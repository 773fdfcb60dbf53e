from contextlib import nullcontext

import pytest
import torch
from timm.layers import BatchNormAct2d

from stopgrad.cpu.batch_norm import BatchNormCall
from stopgrad.cpu.operations import CpuOperations
from stopgrad.hardware import autocast
from stopgrad.nets.norms import statistics_kept

CHANNELS = 5


def norm(kind=torch.nn.BatchNorm2d, **settings):
    torch.manual_seed(0)
    made = kind(CHANNELS, **settings)
    if made.affine:
        made.weight.data.uniform_(0.5, 2)
        made.bias.data.normal_()
    made.running_mean.normal_()
    made.running_var.uniform_(0.5, 2)
    return made


def images(offset=0.0, num=6, layout=torch.channels_last):
    torch.manual_seed(1)
    return (torch.randn(num, CHANNELS, 4, 3) + offset).bfloat16().to(memory_format=layout).requires_grad_()


def in_one_pass(images, module):
    call = BatchNormCall(
        images, module.running_mean, module.running_var, module.weight, module.bias, True, module.momentum, module.eps
    )
    assert call.is_of_images
    return call.in_one_pass()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("offset", [0.0, -3.0, 20.0])
def test_result_gradients_and_running_statistics_are_those_of_float64(offset, layout):
    own, exact = norm(), norm().double()
    x = images(offset, layout=layout)
    y = in_one_pass(x, own)
    x64 = x.detach().double().requires_grad_()
    y64 = exact(x64)
    push = torch.randn(y.shape).bfloat16()
    found = torch.autograd.grad(y, (x, own.weight, own.bias), push)
    expected = torch.autograd.grad(y64, (x64, exact.weight, exact.bias), push.double())
    assert y.dtype == found[0].dtype == torch.bfloat16
    # Half a step of bf16 in the last place, of the largest for sums of several.
    torch.testing.assert_close(y.double(), y64, rtol=0.005, atol=0.005)
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).abs().max() <= 0.005 * other.abs().max()
    torch.testing.assert_close(own.running_mean.double(), exact.running_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own.running_var.double(), exact.running_var, rtol=1e-4, atol=1e-6)


def test_a_large_mean_does_not_cost_the_variance():
    own, exact = norm(), norm().double()
    x = (torch.arange(96.0).remainder(2) * 4 + 1000).bfloat16().view(1, 1, 8, 12).repeat(1, CHANNELS, 1, 1)
    torch.testing.assert_close(in_one_pass(x, own).double(), exact(x.double()), rtol=0.005, atol=0.005)
    torch.testing.assert_close(own.running_var.double(), exact.running_var, rtol=1e-5, atol=1e-6)


def trained(kind, compiled):
    module, x = norm(kind), images()
    if compiled:
        # What was compiled before is used again otherwise.
        torch.compiler.reset()
        module.compile()
    with autocast(torch.device("cpu"), "bf16"):
        y = module(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).bfloat16())
    return y.detach(), x.grad, module.weight.grad, module.running_mean, module.running_var


@pytest.mark.parametrize("kind", [torch.nn.BatchNorm2d, BatchNormAct2d])
def test_a_compiled_network_computes_the_same(kind):
    plain, fast = trained(kind, False), trained(kind, True)
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == other.dtype
        assert (one.float() - other.float()).abs().max() <= 0.01 * other.float().abs().max()


def test_the_compiled_gradient_does_not_see_the_running_mean():
    """What a compiler keeps for the backward pass may have been updated by then."""
    torch.compiler.reset()
    found = []
    for far in (0.0, 10.0):
        module = norm()
        module.running_mean.fill_(far)
        module.compile()
        with autocast(torch.device("cpu"), "bf16"):
            y = module(images())
        y.backward(torch.ones_like(y) + torch.arange(3.0).bfloat16())
        found.append(module.weight.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", [torch.nn.BatchNorm2d, BatchNormAct2d])
@pytest.mark.parametrize("compiled", [True, False])
def test_it_is_for_compiled_networks(kind, compiled, monkeypatch):
    monkeypatch.setattr(BatchNormCall, "in_one_pass", lambda call: call.input * 0 + 7)
    y = trained(kind, compiled)[0]
    assert bool((y == 7).all()) == compiled


@pytest.mark.parametrize("case", ["eval", "kept", "no affine", "float32", "vectors"])
def test_other_norms_are_left_to_torch(case, monkeypatch):
    monkeypatch.setattr(BatchNormCall, "in_one_pass", lambda call: 1 / 0)
    module, x = norm(affine=case != "no affine"), images()
    if case == "eval":
        module.eval()
    if case == "vectors":
        module, x = torch.nn.BatchNorm1d(CHANNELS), torch.randn(8, CHANNELS).bfloat16()
    if case == "float32":
        x = x.float()
    run = torch.compile(lambda images: module(images), backend="eager")
    kept = statistics_kept(module) if case == "kept" else nullcontext()
    with torch.autocast("cpu", torch.bfloat16), CpuOperations(), kept:
        assert run(x).isfinite().all()
