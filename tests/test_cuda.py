"""What only a GPU can show. `benchmarks/gpu_check.py` runs these first."""

import numpy as np
import pytest
import torch

from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.pixels import PixelFormat
from stopgrad.data.sources import ArraySource
from stopgrad.distributed.rank import Rank
from stopgrad.hardware import autocast
from stopgrad.loader.loader import Loader
from stopgrad.train.build import build_method
from stopgrad.train.optim import build_optimizer, load_optimizer_state

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TINY = {"backbone": "resnet10_16", "image_size": 32, "batch_size": 32, "projection_dim": 64, "workers": 2}


@pytest.mark.parametrize(("channels", "depth"), [(3, 8), (1, 16), (5, 16)])
@pytest.mark.parametrize("geometry", ["resized_crop", "affine"])
@pytest.mark.parametrize("held", [True, False], ids=["on the GPU", "pinned"])
def test_views_of_a_gpu_are_those_of_the_cpu(monkeypatch, rng, channels, depth, geometry, held):
    if not held:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (0, 0))
    pixels = rng.integers(0, 2**depth, (64, 40, 40, channels), dtype=np.uint8 if depth == 8 else np.uint16)
    store = load_images(ArraySource(pixels), shortest=64, pixels=PixelFormat(channels, depth))
    statistics = {"mean": (0.5,) * channels, "std": (0.2,) * channels} if channels != 3 else {}
    config = Config().replace(**TINY, geometry=geometry, local_views=2, local_size=16, **statistics)
    made = []
    for device in (CPU, CUDA):
        loader = Loader(store, config, Rank(), device)
        batches = loader.batches(0, 2)
        made.append([[view.cpu() for view in loader.all_views(batch, device)] for batch in batches])
    for one, other in zip(*made, strict=True):
        for here, there in zip(one, other, strict=True):
            torch.testing.assert_close(there, here, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_steps_on_a_gpu_are_those_on_the_cpu(optimizer):
    """In float64: AdamW steps by a gradient's sign, and that of a bias before a BatchNorm is rounding alone."""
    losses, weights = [], []
    views = torch.randn(2, 32, 3, 32, 32, dtype=torch.float64)
    for device in (CPU, CUDA):
        config = Config().replace(**TINY, optimizer=optimizer, lr=0.1)
        method = build_method(config, device).train().double()
        built = build_optimizer(method, config)
        losses.append([])
        for step in range(4):
            loss, _ = method(views.to(device), torch.Generator().manual_seed(step))
            built.zero_grad()
            loss.backward()
            built.step()
            # As a run that goes on: state of other strides must not be taken for weights' own.
            load_optimizer_state(built, built.state_dict())
            losses[-1].append(float(loss))
        weights.append([p.detach().cpu() for p in method.parameters()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert len(set(losses[0])) == 4
    if optimizer != "adamw":
        for here, there in zip(*weights, strict=True):
            torch.testing.assert_close(there, here, rtol=5e-2, atol=5e-3)


def test_compiled_steps_on_a_gpu_are_finite():
    config = Config().replace(**TINY, guide="nearest_views", views=4, source_first=False)
    method = build_method(config, CUDA).train()
    for network in method.children():
        network.compile()
    views = torch.randn(4, 32, 3, 32, 32, device=CUDA)
    for step in range(2):
        with autocast(CUDA, "bf16"):
            loss, _ = method(views, torch.Generator().manual_seed(step))
        loss.backward()
        assert loss.isfinite()


def test_no_step_waits_for_the_gpu():
    config = Config().replace(**TINY, guide="nearest_views", source_first=True)
    method = build_method(config, CUDA).train()
    optimizer = build_optimizer(method, config)
    views = torch.randn(2, 32, 3, 32, 32, device=CUDA)

    def step():
        with autocast(CUDA, "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32"):
            loss, _ = method(views, torch.Generator().manual_seed(0))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        method.after_step(0.5)

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
