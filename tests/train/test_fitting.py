"""The batch that fits in memory."""

from unittest.mock import Mock

import pytest
import torch
from fake_devices import CUDA, pretend_small_memory
from recorder import Recorder

import stopgrad
from stopgrad.config import Config
from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError, StopgradError
from stopgrad.train import pretrain as module
from stopgrad.train.build import largest_batch
from stopgrad.train.pretrain import _with_fitting_batch

CPU = torch.device("cpu")
SETTINGS = {"image_size": 12, "local_size": 8, "steps": 2, "device": "cpu"}


def config(tiny, **settings):
    return Config().replace(**{**tiny, **SETTINGS, **settings})


@pytest.mark.parametrize(
    ("images", "most", "found", "tried"),
    [(20, 100, 16, [64, 32, 16, 16]), (20, 8, 8, [8, 8]), (64, 100, 64, [64, 64]), (4, 4, 4, [4, 4])],
)
def test_the_largest_power_of_two_that_fits(monkeypatch, tiny, images, most, found, tried):
    seen = pretend_small_memory(monkeypatch, images)
    assert largest_batch(config(tiny), CPU, None, most) == found
    # The second step has the optimizer's state.
    assert seen == tried


@pytest.mark.parametrize("settings", [{"accumulate": 4}, {"accumulate": 4, "local_views": 2, "source_first": True}])
def test_parts_make_larger_batches_fit(monkeypatch, tiny, settings):
    pretend_small_memory(monkeypatch, 8)
    assert largest_batch(config(tiny, **settings), CPU, None, 128) == 32


def test_where_not_even_a_few_fit(monkeypatch, tiny):
    pretend_small_memory(monkeypatch, 3)
    with pytest.raises(StopgradError, match="no memory for a training step of 4 images of 12 pixels"):
        largest_batch(config(tiny), CPU, None, 100)


@pytest.mark.parametrize(
    ("rank", "devices", "batch"), [(Rank(), 0, 512), (Rank(), 2, 1024), (Rank(1, 4), 4, 2048)]
)  # fmt: skip
def test_a_gpu_takes_what_fits_on_each(monkeypatch, tiny, rank, devices, batch):
    asked = Mock(return_value=512)
    monkeypatch.setattr(module, "largest_batch", asked)
    recorder, settings = Recorder(), config(tiny, devices=devices)
    found = _with_fitting_batch(settings, CUDA, rank, 100_000, None, recorder)
    assert found.training.batch_size == batch
    assert asked.call_args.args[3] == 4096 // max(devices, 1)
    assert f"{batch} images, of which cuda:0 holds 512" in recorder.said[0]
    # Each of four groups, or of two on each of two processes, is as a process's batch.
    if devices < 4:
        found = _with_fitting_batch(
            config(tiny, devices=devices, batch_groups=4), CUDA, rank, 100_000, None, Recorder()
        )
        assert found.training.batch_size == 2048
    # An epoch has steps.
    _with_fitting_batch(settings, CUDA, rank, 16 * 100, None, recorder)
    assert asked.call_args.args[3] == 100 // max(devices, 1)


def test_on_a_cpu_it_is_the_recipes(tmp_path, tiny):
    recorder = Recorder()
    settings = {**tiny, **SETTINGS, "batch_size": "auto", "monitor_images": 64, "final_images": 64, "baselines": False}
    run = stopgrad.pretrain(out=tmp_path / "run", recipe="digits", devices=1, reporter=recorder, **settings)
    assert any("128 images, the recipe's: auto is for GPUs" in text for text in recorder.said)
    assert run.metrics["images_seen"] == 2 * 128
    # What was found when the run began stays.
    stopgrad.pretrain(out=tmp_path / "run", resume=True, batch_size="auto", reporter=Recorder())
    with pytest.raises(ConfigError, match="batch_size = 'most': needs a value of type int"):
        stopgrad.pretrain(out=tmp_path / "other", batch_size="most", reporter=Recorder())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {},
            r"no memory for a step of 64 images \(batch_size = 64\). This fits: batch_size = 16, or accumulate = 4 for",
        ),
        ({"accumulate": 2}, r"batch_size = 32, or accumulate = 4 for the same batch in parts"),
        ({"method": "simclr"}, r"This fits: batch_size = 16\.$"),
        (
            {"batch_groups": 2},
            r"step of 32 images \(batch_size = 64 in 2 groups\). This fits: batch_size = 32, or accumulate = 2",
        ),
    ],
)
def test_training_without_memory_says_what_fits(monkeypatch, tmp_path, tiny, more, words):
    pretend_small_memory(monkeypatch, 20)
    settings = {**tiny, **SETTINGS, **more}
    with pytest.raises(StopgradError, match=words):
        stopgrad.pretrain(out=tmp_path / "run", devices=1, reporter=Recorder(), **settings)
