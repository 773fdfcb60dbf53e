"""What runs first and last on a GPU, tried without one."""

import gpu_agenda
import gpu_check
import pytest
import torch

from stopgrad.methods import METHODS
from stopgrad.objective.guides import GUIDES
from stopgrad.reporter import SilentReporter

CPU = torch.device("cpu")


def test_every_method_and_guide_is_tried():
    found = list(gpu_check.variants())
    assert {settings["method"] for settings in found} == set(METHODS)
    assert {settings.get("guide") for settings in found if settings["method"] == "byol"} >= set(GUIDES)
    assert any("guide_keep" in settings for settings in found)


def test_steps_of_some_of_them(monkeypatch):
    chosen = [{"method": "byol", "guide": "nearest_views", "guide_keep": 0.5, "source_first": True}, {"method": "moco"}]
    monkeypatch.setattr(gpu_check, "variants", lambda: iter(chosen))
    found = gpu_check.check_steps(CPU, tiny=True)
    assert [one["method"] for one in found] == ["byol", "moco"]
    assert all(one["passed"] for one in found)


def test_a_step_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(gpu_check, "variants", lambda: iter([{"method": "simclr"}]))

    def fail(*_):
        raise RuntimeError("CUDA error: a kernel\nmore")

    monkeypatch.setattr(gpu_check.Step, "take", fail)
    assert gpu_check.check_steps(CPU, tiny=True) == [
        {"method": "simclr", "passed": False, "error": "CUDA error: a kernel"}
    ]


@pytest.mark.slow
def test_resuming(tmp_path):
    assert gpu_check.check_resuming(CPU, tmp_path) == {"largest_difference": 0.0, "passed": True}


def test_throughput():
    found = gpu_check.throughput(CPU, tiny=True)
    assert [(row["batch"], row["cudnn_benchmark"]) for row in found["rows"]] == [(8, False), (16, False)]
    for row in found["rows"]:
        assert row["images_per_second"] > 0
        assert row["share_of_largest_product"] > 0
        assert row["share_of_peak"] is None


@pytest.mark.parametrize(
    ("name", "peak"), [("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA H200", 989e12), ("Tesla T4", None)]
)
def test_peaks(name, peak):
    assert gpu_check.peak_of(name) == peak


def test_the_agenda_checks_once_and_stops_at_a_failure(monkeypatch, tmp_path):
    answers = iter([False, True])
    called = []

    def check(device, *, tiny):
        called.append(device)
        return {"passed": next(answers), "seconds": 1.0}

    monkeypatch.setattr(gpu_check, "check", check)
    assert not gpu_agenda.checked(tmp_path, SilentReporter(), tiny=True)
    assert gpu_agenda.checked(tmp_path, SilentReporter(), tiny=True)
    assert gpu_agenda.checked(tmp_path, SilentReporter(), tiny=True)
    assert len(called) == 2
