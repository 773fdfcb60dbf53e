import pytest
import timm
import torch
import torch.nn.functional as F

from stopgrad.cpu import operations
from stopgrad.cpu.convolution import ConvolutionCall
from stopgrad.cpu.operations import CpuOperations
from stopgrad.hardware import autocast

CASES = [
    # channels, side, kernel, stride, padding, dilation, bias
    (8, 9, 5, 1, 2, 1, False),
    (8, 9, 5, 2, 2, 1, True),
    (8, 9, 3, 2, 0, 1, False),
    (8, 9, 3, 1, 2, 2, False),
    (8, 9, 3, 1, 1, 1, True),
]


def gradients(case, fast):
    channels, side, kernel, stride, padding, dilation, has_bias = case
    torch.manual_seed(0)
    x = torch.randn(4, channels, side, side).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, 1, kernel, kernel, requires_grad=True)
    bias = torch.randn(channels, requires_grad=True) if has_bias else None
    with torch.autocast("cpu", torch.bfloat16), CpuOperations() if fast else torch.autocast("cpu", torch.bfloat16):
        y = F.conv2d(x, weight, bias, stride, padding, dilation, channels)
    wanted = [t for t in (x, weight, bias) if t is not None]
    return y.detach(), torch.autograd.grad(y.float().square().sum(), wanted)


@pytest.mark.parametrize("case", CASES)
def test_the_same_convolution_and_gradients_as_torch(case):
    (y, fast), (y_plain, plain) = gradients(case, True), gradients(case, False)
    assert torch.equal(y, y_plain)
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert (one - other).abs().max() <= 0.02 * other.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_strided_convolution_of_a_single_pixel_has_the_gradient_of_its_operands(layout):
    """Of torch's own in bf16 it takes memory that was never written, whose bits are here NaN's."""
    torch.manual_seed(0)
    x = torch.randn(5, 16, 1, 1).to(memory_format=layout)
    weight = torch.randn(32, 16, 3, 3).to(memory_format=layout).requires_grad_()
    # Of a sum over 5 pixels: the middle of the kernel alone sees them.
    expected = torch.zeros(32, 16, 3, 3)
    expected[:, :, 1, 1] = x.bfloat16().float().sum(0).flatten()
    for size in torch.randint(1, 200_000, (30,)).tolist():
        torch.full((size,), float("nan"))
        with autocast(torch.device("cpu"), "bf16"):
            y = F.conv2d(x, weight, None, 2, 1)
        (found,) = torch.autograd.grad(y.float().sum(), weight)
        torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-6)


SMALL = [
    # images, channels, channels out, height, width, stride, bias
    (32, 128, 128, 3, 3, 1, False),
    (24, 64, 128, 6, 6, 2, False),
    (16, 64, 128, 7, 7, 2, True),
    (16, 64, 128, 4, 8, 1, True),
    (6, 64, 128, 1, 2, 2, False),
    (8, 32, 512, 2, 2, 1, False),
]


def small(case, layout, fast, monkeypatch):
    num, channels, out, height, width, stride, has_bias = case
    torch.manual_seed(0)
    x = torch.randn(num, channels, height, width).to(memory_format=layout).requires_grad_()
    weight = (torch.randn(out, channels, 3, 3) / channels).to(memory_format=layout).requires_grad_()
    bias = torch.randn(out, requires_grad=True) if has_bias else None
    calls = []
    side_by_side = ConvolutionCall.side_by_side
    monkeypatch.setattr(operations, "_has_amx", lambda: fast)
    monkeypatch.setattr(ConvolutionCall, "side_by_side", lambda call: (calls.append(call), side_by_side(call))[1])
    with torch.autocast("cpu", torch.bfloat16), CpuOperations():
        y = F.conv2d(x, weight, bias, stride, 1)
    assert len(calls) == fast
    wanted = [t for t in (x, weight, bias) if t is not None]
    push = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return y.detach(), *torch.autograd.grad(y.float(), wanted, push)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", SMALL)
def test_small_images_side_by_side_are_convolved_as_each_for_itself(case, layout, monkeypatch):
    fast, plain = (small(case, layout, fast, monkeypatch) for fast in (True, False))
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert (one.float() - other.float()).abs().max() <= 0.02 * other.float().abs().max()


@pytest.mark.parametrize(
    ("num", "out", "side", "settings", "with_gradients"),
    [
        (32, 64, 4, {}, True),  # few channels
        (32, 128, 4, {}, False),  # few without gradients
        (32, 128, 9, {}, True),  # large
        (32, 128, 1, {}, True),  # a single pixel
        (61, 128, 4, {}, True),  # a prime number of images
        (32, 128, 4, {"padding": 0}, True),
        (32, 128, 4, {"dilation": 2, "padding": 2}, True),
        (32, 128, 4, {"stride": (1, 2)}, True),
        (32, 128, 4, {"groups": 2}, True),
    ],
)
def test_other_convolutions_are_left_to_torch(num, out, side, settings, with_gradients, monkeypatch):
    monkeypatch.setattr(operations, "_has_amx", lambda: True)
    calls = []
    monkeypatch.setattr(ConvolutionCall, "side_by_side", lambda call: calls.append(call) or call.input)
    weight = torch.randn(out, 16 // settings.get("groups", 1), 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), CpuOperations(), torch.set_grad_enabled(with_gradients):
        F.conv2d(torch.randn(num, 16, side, side), weight, **{"padding": 1, **settings})
    assert calls == []


def test_a_compiled_network_convolves_small_images_by_torch():
    network = torch.nn.Conv2d(32, 128, 3, padding=1)
    with autocast(torch.device("cpu"), "bf16"):
        plain = network(x := torch.randn(8, 32, 4, 4))
        network.compile()
        found = network(x)
        network(torch.randn(12, 32, 4, 4)).float().sum().backward()
    torch.testing.assert_close(found.float(), plain.float(), rtol=0.02, atol=0.02)


def test_nothing_else_is_touched():
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(4, 1, 5, 5, requires_grad=True)
    with CpuOperations():
        in_fp32 = F.conv2d(x, weight, None, 1, 2, 1, 4)
        with torch.autocast("cpu", torch.bfloat16):
            dense = F.conv2d(x, torch.randn(3, 4, 5, 5, requires_grad=True))
            same = F.conv2d(x, weight, None, 1, "same", 1, 4)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            forward_only = F.conv2d(x, weight, None, 1, 2, 1, 4)
    names = [type(t.grad_fn).__name__ for t in (in_fp32, dense, same)]
    assert all(name.startswith("Convolution") for name in names), names
    assert forward_only.grad_fn is None


def test_a_network_of_depthwise_convolutions_trains_under_the_usual_context():
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    with autocast(torch.device("cpu"), "bf16"):
        loss = network(torch.randn(2, 3, 64, 64)).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
