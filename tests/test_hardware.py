import pytest
import torch

from stopgrad import hardware
from stopgrad.errors import ConfigError
from stopgrad.hardware import (
    choose_device,
    choose_precision,
    choose_processes,
    choose_statistics,
    undivided_operations,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("devices", "device", "batch_size", "cores", "processes"),
    [
        (0, CPU, 128, 2, 2),
        (0, CPU, 512, 16, 2),
        (0, CPU, 128, 1, 1),
        (0, CPU, 127, 2, 1),
        (0, CPU, 64, 2, 1),
        (0, CUDA, 512, 16, 1),
        (3, CPU, 64, 1, 3),
    ],
)
def test_the_number_of_processes(monkeypatch, devices, device, batch_size, cores, processes):
    monkeypatch.setattr(hardware, "usable_cores", lambda: cores)
    assert choose_processes(devices, device, batch_size) == processes


def test_a_batch_in_groups_divides_among_processes_and_is_local(monkeypatch):
    monkeypatch.setattr(hardware, "usable_cores", lambda: 2)
    assert [choose_processes(0, CPU, 180, groups) for groups in (2, 3, 4)] == [2, 1, 2]
    assert [choose_statistics("auto", CUDA, groups) for groups in (0, 1, 2)] == ["global", "global", "local"]


@pytest.mark.parametrize("name", ["cud", "cuda:x", "cpu:0", "gpu"])
def test_unknown_devices(name):
    with pytest.raises(ConfigError, match="is unknown"):
        choose_device(name)


def test_precision_that_is_asked_for_is_given():
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"
    assert choose_precision("auto", CPU) in ("fp32", "bf16")
    with pytest.raises(ConfigError, match="precision = 'fp31' is unknown: did you mean 'fp32'"):
        choose_precision("fp31", CPU)


def test_operations_are_divided_again_afterwards():
    def fail():
        with undivided_operations():
            assert torch.get_num_threads() == 1
            raise KeyError

    before = torch.get_num_threads()
    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before
