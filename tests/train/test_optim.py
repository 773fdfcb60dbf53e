import math

import pytest
import torch

from stopgrad.config import Config
from stopgrad.methods import METHODS
from stopgrad.train.optim import build_optimizer, load_optimizer_state, lr_factor, peak_lr, set_lr

TINY = {"backbone": "test_resnet", "projector_width": 8, "projection_dim": 8, "predictor_width": 4}


def factors(total, per_epoch, **settings):
    config = Config().replace(**settings)
    return [lr_factor(config, step, total, per_epoch) for step in range(total)]


def test_cosine_every_step():
    values = factors(100, 10)
    assert values[0] == 1
    assert values[50] == pytest.approx(0.5)
    assert values[99] == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)
    assert values == sorted(values, reverse=True)


def test_cosine_per_epoch_holds_within_an_epoch():
    values = factors(100, 10, lr_schedule="cosine_per_epoch")
    assert values[10] == values[19]
    # The authors': 0.5 (1 + cos(pi epoch / epochs)).
    assert values[35] == pytest.approx((1 + math.cos(math.pi * 3 / 10)) / 2)


def test_warmup_is_linear_and_the_cosine_starts_after_it():
    values = factors(100, 10, warmup_epochs=2.0)
    assert values[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert values[20] == 1
    assert values[60] == pytest.approx(0.5)


def test_constant():
    assert set(factors(10, 5, lr_schedule="constant")) == {1.0}


def test_rate_scales_with_the_batch():
    config = Config().replace(lr=0.1, batch_size=512)
    assert peak_lr(config) == pytest.approx(0.2)
    assert peak_lr(config, 64) == pytest.approx(0.025)


@pytest.mark.parametrize("fixed", [True, False])
def test_the_predictor_may_keep_its_rate(fixed):
    config = Config().replace(**TINY, predictor_lr_fixed=fixed)
    optimizer = build_optimizer(METHODS["simsiam"](config), config)
    assert set_lr(optimizer, 0.4, 0.5) == 0.2
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.4 if fixed else 0.2]


def test_lars_leaves_biases_and_batchnorm_to_plain_sgd():
    config = Config().replace(**TINY, optimizer="lars", weight_decay=1e-6, lr=0.5)
    method = METHODS["byol"](config)
    optimizer = build_optimizer(method, config)
    groups = optimizer.param_groups
    assert [(g["name"], g["always_adapt"]) for g in groups] == [
        ("encoder", True), ("encoder", False), ("predictor", True), ("predictor", False)
    ]  # fmt: skip
    for group in groups:
        assert all((p.ndim > 1) == group["always_adapt"] for p in group["params"])
        assert group["weight_decay"] == (1e-6 if group["always_adapt"] else 0)
    vector = groups[1]["params"][0]
    before = vector.detach().clone()
    vector.grad = torch.ones_like(vector)
    optimizer.step()
    torch.testing.assert_close(vector.detach(), before - peak_lr(config))


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
@pytest.mark.slow
def test_state_loads_into_channels_last_weights(name):
    """The fused kernels walk weight and momentum side by side through memory, whatever their strides."""
    config = Config().replace(**TINY, optimizer=name, lr=0.5)

    def train(steps, optimizer_state=None, method_state=None):
        torch.manual_seed(0)
        method = METHODS["simsiam"](config).to(memory_format=torch.channels_last)
        optimizer = build_optimizer(method, config)
        if method_state is not None:
            method.load_state_dict(method_state)
            load_optimizer_state(optimizer, optimizer_state)
        for step in steps:
            for i, p in enumerate(method.parameters()):
                torch.manual_seed(1000 * step + i)
                p.grad = torch.randn(p.shape).contiguous(
                    memory_format=torch.channels_last if p.ndim == 4 else torch.contiguous_format
                )
            optimizer.step()
        return method.state_dict(), optimizer.state_dict()

    whole, _ = train(range(6))
    half, half_optimizer = train(range(3))
    # As a checkpoint brings it back: plain memory.
    for entries in half_optimizer["state"].values():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                entries[key] = value.clone(memory_format=torch.contiguous_format)
    resumed, _ = train(range(3, 6), half_optimizer, half)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
