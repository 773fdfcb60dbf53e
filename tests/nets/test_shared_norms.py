import copy
import threading

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from stopgrad.nets.norms import SharedBatchNorm, share_statistics, statistics_kept

SHAPE = (9, 5, 4, 3)


def exchange_of(count):
    """For each of `count` threads, what brings their tensors together."""
    barrier, box = threading.Barrier(count, timeout=10), [None] * count

    def of(index):
        def exchange(own):
            box[index] = own
            barrier.wait()
            everyones = torch.stack(box)
            barrier.wait()
            return everyones

        return exchange

    return [of(index) for index in range(count)]


def passed(norm, images, gradient):
    images = images.clone().requires_grad_()
    out = norm(images)
    out.backward(gradient)
    return out.detach(), images.grad


def norms():
    torch.manual_seed(0)
    made = [nn.BatchNorm2d(5), nn.BatchNorm2d(5, affine=False), BatchNormAct2d(5), nn.BatchNorm2d(5, momentum=None)]
    for norm in made:
        if norm.affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return made


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("shares", [(9,), (5, 4), (3, 0, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shares_of_a_batch_are_normalised_as_the_whole(index, shares, dtype):
    whole = norms()[index].to(dtype)
    images, gradient = torch.randn(SHAPE, dtype=dtype) * 2 + 3, torch.randn(SHAPE, dtype=dtype)
    parts = [SharedBatchNorm(copy.deepcopy(whole), exchange) for exchange in exchange_of(len(shares))]
    expected = passed(whole, images, gradient)
    found = [None] * len(shares)
    given = list(zip(parts, images.split(shares), gradient.split(shares), strict=True))

    def work(i):
        found[i] = passed(*given[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in range(2):
        torch.testing.assert_close(torch.cat([one[which] for one in found]), expected[which], rtol=1e-4, atol=1e-5)
    for part in parts:
        for name, value in whole.named_buffers():
            torch.testing.assert_close(part.get_buffer(name), value)
    for name, parameter in whole.named_parameters():
        grads = torch.stack([part.get_parameter(name).grad for part in parts])
        torch.testing.assert_close(grads.sum(dim=0), parameter.grad, rtol=1e-4, atol=1e-5)


def test_bf16_with_float32_weights():
    whole = norms()[0]
    part = SharedBatchNorm(copy.deepcopy(whole), exchange_of(1)[0])
    images, gradient = torch.randn(SHAPE).bfloat16(), torch.randn(SHAPE).bfloat16()
    expected, found = passed(whole, images, gradient), passed(part, images, gradient)
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.03)
    torch.testing.assert_close(part.running_var, whole.running_var)


def test_every_batchnorm_is_replaced_and_eval_mode_and_kept_statistics_are_as_before():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), BatchNormAct2d(5), nn.Sequential(nn.BatchNorm2d(5)))
    before = copy.deepcopy(network)
    share_statistics(network, exchange_of(1)[0])
    assert isinstance(network[1], SharedBatchNorm)
    assert isinstance(network[2][0], SharedBatchNorm)
    assert list(network.state_dict()) == list(before.state_dict())
    images = torch.randn(4, 3, 2, 2)
    with statistics_kept(network):
        torch.testing.assert_close(network(images), before(images))
    assert network[1].num_batches_tracked == 0
    torch.testing.assert_close(network.eval()(images), nn.Sequential(*network).eval()(images))


def test_one_value_a_channel_is_refused():
    part = SharedBatchNorm(nn.BatchNorm1d(3), exchange_of(1)[0])
    with pytest.raises(ValueError, match="one value a channel"):
        part(torch.ones(1, 3))
