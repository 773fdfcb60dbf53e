"""What is done on GPUs, on a machine without one: calls, shapes, dtypes, and what the host waits for."""

import inspect
import time
from contextlib import nullcontext
from datetime import timedelta
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from fake_devices import CUDA, META, Sent, pretend_cuda, pretend_memory
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from stopgrad.augment import augment
from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.pixels import PixelFormat
from stopgrad.data.sources import ArraySource
from stopgrad.distributed import group
from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError
from stopgrad.evaluate.shared.prepare import solver_device
from stopgrad.hardware import autocast, choose_device, choose_precision, choose_processes, plain_batch_size
from stopgrad.loader.loader import Batch, Loader, _crop
from stopgrad.nets.norms import statistics_kept, synchronise
from stopgrad.objective.device import sent
from stopgrad.train.build import build_method
from stopgrad.train.loop import Training
from stopgrad.train.optim import build_optimizer
from stopgrad.train.pretrain import _with_processes
from stopgrad.train.progress import Progress

CPU, MPS = torch.device("cpu"), torch.device("mps")
TINY = {"backbone": "resnet10_16", "image_size": 16, "batch_size": 8, "projection_dim": 16, "workers": 1}
GUIDES = ("symmetric", "nearest_views", "random_views", "farthest_views")


IMAGES = ArraySource(np.zeros((500, 8, 8, 3), dtype=np.uint8))


def fake():
    return FakeTensorMode(allow_non_fake_inputs=True)


# Choices


@pytest.mark.parametrize(
    ("name", "local", "index"), [("auto", 0, 0), ("auto", 1, 1), ("cuda", 1, 1), ("cuda:1", 0, 1), ("cpu", 1, None)]
)
def test_the_device_of_a_process(monkeypatch, name, local, index):
    pretend_cuda(monkeypatch)
    found = choose_device(name, local)
    assert found == (torch.device("cpu") if index is None else torch.device("cuda", index))


@pytest.mark.parametrize("name", ["cuda:2", "cuda"])
def test_a_gpu_that_there_is_not(monkeypatch, name):
    pretend_cuda(monkeypatch)
    with pytest.raises(ConfigError, match="cuda:2 is not available: this machine has 2"):
        choose_device(name, 2)


@pytest.mark.parametrize(("capability", "kind"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_bf16_where_the_gpu_computes_in_it(monkeypatch, capability, kind):
    pretend_cuda(monkeypatch, capability=capability)
    assert choose_precision("auto", CUDA) == kind
    assert choose_precision("auto", MPS) == "fp32"
    assert choose_processes(0, CUDA, 4096) == 1


def test_autocast_on_a_gpu(monkeypatch):
    entered = Mock(side_effect=lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "autocast", entered)
    autocast(CUDA, "bf16")
    assert entered.call_args == (("cuda",), {"dtype": torch.bfloat16})
    autocast(CUDA, "fp32")
    assert entered.call_count == 1


@pytest.mark.parametrize(("size", "images"), [(32, 512), (224, 512), (448, 128), (8192, 1)])
def test_images_a_pass_on_a_gpu(size, images):
    assert plain_batch_size(CUDA, size) == images


def test_a_classifier_is_fitted_where_there_is_room(monkeypatch):
    freed = Mock()
    monkeypatch.setattr(torch.cuda, "empty_cache", freed)
    vectors = torch.zeros(100, 10)
    pretend_cuda(monkeypatch, free=4 * vectors.nbytes)
    assert solver_device("cuda", vectors) == CUDA
    assert freed.called
    pretend_cuda(monkeypatch, free=4 * vectors.nbytes - 1)
    assert solver_device("cuda", vectors) == CPU


@pytest.mark.parametrize(("device", "setting"), [(MPS, "auto"), (MPS, "mps"), (CUDA, "cuda:0")])
def test_one_device_is_not_for_several_processes(monkeypatch, device, setting):
    pretend_cuda(monkeypatch)
    settings = Config().replace(devices=2, device=setting)
    with pytest.raises(ConfigError, match=f"devices = 2 with device = '{setting}', a single device"):
        _with_processes(settings, device, Rank(), IMAGES, in_memory="", reporter=Mock())


def test_each_process_has_a_gpu(monkeypatch):
    pretend_cuda(monkeypatch)
    settings = Config().replace(devices=2, batch_size=252)
    assert _with_processes(settings, CUDA, Rank(), IMAGES, in_memory="", reporter=Mock()).training.devices == 2
    with pytest.raises(ConfigError, match="cuda:2 is not available"):
        _with_processes(settings.replace(devices=3), CUDA, Rank(), IMAGES, in_memory="", reporter=Mock())


def test_messages_of_the_host_go_by_gloo_and_those_of_gpus_by_nccl(monkeypatch):
    begun, ended = Mock(), Mock()
    monkeypatch.setattr(group.dist, "init_process_group", begun)
    monkeypatch.setattr(group.dist, "destroy_process_group", ended)
    monkeypatch.setattr(group, "meet", lambda _: (Mock(), ["here", "there"]))
    monkeypatch.setattr(group, "watched", lambda *_: nullcontext())
    with group.joined(Rank(1, 2, 1), torch.device("cuda", 1)):
        pass
    assert begun.call_args.args == ("cpu:gloo,cuda:nccl",)
    assert isinstance(begun.call_args.kwargs["timeout"], timedelta)
    assert ended.called


# What is sent


@pytest.mark.parametrize(("device", "pinned"), [(CUDA, True), (MPS, False), (CPU, False)])
def test_only_pinned_memory_is_copied_aside(device, pinned):
    tensor = Mock(spec=Tensor, device=CPU)
    tensor.pin_memory.return_value = held = Mock(spec=Tensor, device=CPU)
    held.to.return_value = tensor.to.return_value = torch.zeros(1)
    sent(tensor, device)
    assert tensor.pin_memory.called == pinned
    if pinned:
        assert held.to.call_args == ((device,), {"non_blocking": True})
    else:
        assert tensor.to.call_args == ((device,), {})


def store_of(rng, channels=3, depth=8):
    pixels = rng.integers(0, 2**depth, (32, 24, 24, channels), dtype=np.uint8 if depth == 8 else np.uint16)
    return load_images(ArraySource(pixels), shortest=64, pixels=PixelFormat(channels, depth))


def config_of(channels=3, **settings):
    statistics = {"mean": (0.5,) * channels, "std": (0.2,) * channels} if channels != 3 else {}
    return Config().replace(**{**TINY, **statistics, **settings})


def batch_of(loader):
    batch = next(batches := loader.batches(0, 1))
    batches.close()
    return batch


def test_a_gpu_holds_the_images_that_take_a_quarter_of_its_memory(monkeypatch, rng):
    store = store_of(rng)
    pretend_memory(monkeypatch, 4 * store.stacked.nbytes)
    with fake():
        loader = Loader(store, config_of(), Rank(), CUDA)
    assert loader._images.device == CUDA
    pins = Mock(side_effect=lambda tensor: tensor.clone())
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pins(tensor))
    pretend_memory(monkeypatch, 4 * store.stacked.nbytes - 1)
    batch = batch_of(Loader(store, config_of(), Rank(), CUDA))
    assert batch.whole.shape == (8, 3, 24, 24)
    assert pins.call_count == 1


@pytest.mark.parametrize(("channels", "depth"), [(3, 8), (1, 16), (5, 16)])
@pytest.mark.parametrize("more", [
    {"jitter_form": "single_affine"},
    {"jitter_form": "single_affine", "geometry": "affine", "rotation_degrees": 10.0},
    {"jitter_form": "single_affine", "turn_probability": 0.5, "vertical_flip_probability": 0.5},
])  # fmt: skip
def test_views_are_made_on_a_gpu_without_waiting(monkeypatch, rng, channels, depth, more):
    pretend_memory(monkeypatch, 0)
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
        loader = Loader(
            store_of(rng, channels, depth), config_of(channels, local_views=3, local_size=8, **more), Rank(), CUDA
        )
        batch = batch_of(loader)
    # Fake tensors refuse operands of two devices and whatever needs a value of the device.
    with fake(), Sent(monkeypatch, CUDA) as seen:
        views, local = loader.all_views(batch, CUDA)
    for made, shape in ((views, (2, 8, channels, 16, 16)), (local, (3, 8, channels, 8, 8))):
        assert (made.device, made.dtype, made.shape) == (CUDA, torch.float32, shape)
        assert made[0].is_contiguous(memory_format=torch.channels_last)
    assert seen.waits == []
    # The images that both kinds of view are cut from cross once (affine views are of images of two sizes).
    assert seen.shapes.count((8, channels, 24, 24)) == 1
    # torch indexes no 16-bit integers on CUDA; index_select it has.
    assert torch.uint16 not in seen.indexed


def test_colours_are_jittered_exactly_without_waiting(monkeypatch, rng):
    loader = Loader(store_of(rng), config_of(), Rank())
    batch = batch_of(loader)
    assert batch.draws.jitter.any()
    with Sent(monkeypatch, META) as seen:
        pixels = augment.recolour(torch.empty(16, 3, 16, 16, device=META), batch.draws, batch.augmentation)
    assert pixels.shape == (16, 3, 16, 16)
    assert seen.waits == []
    assert seen.shapes


def test_views_are_made_part_by_part_where_images_are_large(monkeypatch, rng):
    loader = Loader(store_of(rng), config_of(), Rank(), META)
    batch = batch_of(loader)
    monkeypatch.setattr("stopgrad.loader.loader._PIXELS_ON_DEVICE", 3 * 24 * 24)
    made = []
    monkeypatch.setattr(augment, "cut", lambda images, draws, *_: made.append(len(images)) or images[:, :, :16, :16])
    monkeypatch.setattr(augment, "recolour", lambda pixels, *_: pixels)
    monkeypatch.setattr(augment, "normalise", lambda *_, **__: None)
    loader.views(batch, META)
    assert made == [3, 3, 3, 3, 3, 1]


def test_sixteen_bits_are_mirrored_before_they_are_integers(monkeypatch, rng):
    flipped = []
    flip = Tensor.flip
    monkeypatch.setattr(Tensor, "flip", lambda tensor, axes: flipped.append(tensor.dtype) or flip(tensor, axes))
    image = rng.integers(0, 2**16, (20, 20, 1), dtype=np.uint16)
    crop = _crop(8, image, np.array([0, 0, 20, 20]), np.bool_(True), np.bool_(False), np.int64(0))
    plain = _crop(8, image, np.array([0, 0, 20, 20]), np.bool_(False), np.bool_(False), np.int64(0))
    assert crop.dtype == torch.uint16
    assert np.array_equal(crop.numpy(), plain.numpy()[:, :, ::-1])
    assert flipped == [torch.float32]


# Steps


def steps():
    for method in ("simsiam", "byol"):
        for guide in GUIDES:
            yield {"method": method, "guide": guide, "source_first": False}
            if guide != "symmetric":
                yield {"method": method, "guide": guide, "source_first": True}
    for method in ("simclr", "moco", "barlow_twins", "vicreg", "dino"):
        yield {"method": method}


def words(settings):
    return "-".join(str(value) for value in settings.values())


@pytest.mark.parametrize("settings", list(steps()), ids=words)
def test_a_step_waits_for_nothing_and_leaves_no_weight_out(monkeypatch, settings):
    """On torch's meta device, which refuses whatever needs a value: nonzero, item, masks.

    A gradient for every weight that is trained is what DistributedDataParallel needs without `find_unused_parameters`.
    """
    # There is no autocast for the meta device.
    for where in ("contrastive", "redundancy"):
        monkeypatch.setattr(f"stopgrad.objective.{where}.product", lambda first, second: first @ second)
    num_views = 4 if settings.get("source_first") else 2
    local = 2 if settings["method"] in ("simsiam", "byol", "dino") else 0
    config = Config().replace(**TINY, **settings, views=num_views, local_views=local, local_size=8)
    method = build_method(config, META).train()
    views = torch.empty(num_views, 8, 3, 16, 16, device=META)
    given = [torch.empty(local, 8, 3, 8, 8, device=META)] if local else []
    with Sent(monkeypatch, META) as seen:
        loss, diagnostics = method(views, torch.Generator(), *given)
        loss.backward()
        method.after_step(0.5)
    assert (loss.shape, loss.dtype, loss.device) == ((), torch.float32, META)
    assert all(value.device == META for value in diagnostics.values())
    without = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert seen.waits == []


@pytest.mark.parametrize("keep_by", ["decided", "random"])
def test_where_images_are_left_out_every_weight_still_gets_a_gradient(keep_by):
    config = Config().replace(**TINY, guide="nearest_views", guide_keep=0.5, guide_keep_by=keep_by, source_first=True)
    method = build_method(config, CPU).train()
    loss, _ = method(torch.randn(2, 8, 3, 16, 16), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_optimizer_is_the_fused_one(optimizer):
    config = Config().replace(**TINY, optimizer=optimizer)
    method = build_method(config, CPU)
    built = build_optimizer(method, config)
    assert built.defaults["fused"] is True
    trained = {id(p) for p in method.parameters() if p.requires_grad}
    assert {id(p) for group in built.param_groups for p in group["params"]} == trained


def test_batchnorms_of_every_network_are_synchronised():
    method = build_method(Config().replace(**TINY, method="byol"), CPU)
    before = {name: (id(p), p.stride()) for name, p in method.named_parameters()}
    names = list(method.state_dict())
    norms = sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in method.modules())
    synchronise(method)
    found = [part for part in method.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert len(found) == norms
    assert all(isinstance(part, nn.SyncBatchNorm) for part in found)
    # The weights are the same objects, so that it does not matter when the optimizer is made; checkpoints stay.
    assert {name: (id(p), p.stride()) for name, p in method.named_parameters()} == before
    assert list(method.state_dict()) == names
    method.train()
    with statistics_kept(method):
        # torch's forward passes no running statistics on then, and still synchronises.
        assert not any(part.track_running_stats for part in found)
        assert all(part.training for part in found)


def test_waiting_for_the_device_is_the_networks_time():
    """No step waits, so that the time is spent where a line of the log is written."""
    progress = Progress(step=4)
    training = Mock(
        spec=Training, progress=progress, config=Config(), rank=Rank(), _window_start=(0, 0.0),
        loader=Mock(batch_size=8, steps_per_epoch=4), _check_finite=lambda: time.sleep(0.02),
    )  # fmt: skip
    given = [Mock(spec=Batch)] if "batch" in inspect.signature(Training._log_line).parameters else []
    line = Training._log_line(training, *given, 0.1, {})
    assert progress.time_spent["network"] >= 0.02
    assert 0 < line["views_per_second"] <= 4 * 8 * 2 / 0.02
