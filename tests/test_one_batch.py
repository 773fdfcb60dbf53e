"""Several processes compute what one computes."""

import equality
import numpy as np
import pytest
import torch
from recorder import Recorder

import stopgrad
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.distributed.launch import launch
from stopgrad.distributed.rank import Rank

CASES = {name: case for name, *case in equality.cases()}


@pytest.fixture(scope="module", params=[2, 3])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    launch("equality", {"folder": str(folder), "names": list(CASES)}, request.param, Recorder())
    return [dict(np.load(folder / f"{index}.npz")) for index in range(request.param)]


@pytest.fixture(scope="module")
def alone():
    torch.set_num_threads(1)
    return {name: equality.trained(*case, Rank()) for name, case in CASES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_processes_train_as_one_does(name, results, alone):
    losses, state = alone[name]
    assert np.isfinite(state).all()
    np.testing.assert_allclose(np.mean([result[f"{name} losses"] for result in results], axis=0), losses, rtol=1e-8)
    for result in results:
        np.testing.assert_allclose(result[f"{name} state"], state, rtol=1e-8, atol=1e-10)


GROUPED = {name: case for name, *case in equality.grouped_cases()}


@pytest.fixture(scope="module", params=[2, 4], ids=["2 groups", "4 groups"])
def grouped_results(request, tmp_path_factory):
    """Of two processes; with four groups each has two, of some of the cases."""
    folder, groups, names = tmp_path_factory.mktemp("results"), request.param, list(GROUPED)
    if groups == 4:
        # 30% of a fourth would be three images, whose BatchNorm enlarges rounding.
        names = [name for name in names if "30%" not in name][::5]
    launch("equality", {"folder": str(folder), "names": names, "groups": groups}, 2, Recorder())
    return names, groups, [dict(np.load(folder / f"{index}.npz")) for index in range(2)]


@pytest.mark.slow
def test_one_process_trains_in_groups_as_several_do(grouped_results):
    torch.set_num_threads(1)
    names, groups, results = grouped_results
    for name in names:
        losses, state = equality.trained(*GROUPED[name], Rank(), groups)
        mean = np.mean([result[f"{name} losses"] for result in results], axis=0)
        np.testing.assert_allclose(mean, losses, rtol=1e-8, err_msg=name)
        # The first process's: running statistics of the others are not kept.
        np.testing.assert_allclose(results[0][f"{name} state"], state, rtol=1e-8, atol=1e-10, err_msg=name)


def last_state(out):
    return RunDir(out).newest_checkpoint()[0]["method"]


@pytest.mark.slow
def test_a_run_on_two_processes_is_that_of_one_and_local_statistics_are_another(tmp_path, tiny):
    """The command's whole way, in float32: three steps on digits; rounding grows after that."""
    recorder, states = Recorder(), {}
    for name, given in {
        "one": {"devices": 1},
        "two": {"batch_statistics": "global", "devices": 2},
        "local": {"devices": 2},
    }.items():
        settings = {
            "steps": 3,
            "device": "cpu",
            "guide": "symmetric",
            "method": "simsiam",
            "source_first": False,
            **given,
        }
        run = stopgrad.pretrain(out=tmp_path / name, reporter=recorder, **{**tiny, **settings})
        assert run.metrics["images_seen"] == 3 * 64
        states[name] = last_state(tmp_path / name)
    apart = {
        name: max(
            float((value - states["one"][key]).abs().max()) for key, value in states[name].items() if "num_" not in key
        )
        for name in ("two", "local")
    }
    assert apart["two"] < 1e-3 < apart["local"]
    assert any(
        "2 processes, which compute what one would (batch_statistics = global)" in text for text in recorder.said
    )
    assert any("of its own images (batch_statistics = local)" in text for text in recorder.said)


@pytest.mark.slow
@pytest.mark.parametrize("before", [1, 2])
def test_a_run_goes_on_on_another_number_of_processes(tmp_path, tiny, before):
    settings = {"device": "cpu", "guide": "symmetric", "method": "simsiam", "source_first": False, "devices": before}
    settings |= {
        "batch_statistics": "global",
        "steps": 4,
        "checkpoint_every_steps": 2,
        "baselines": False,
        "final_images": 64,
    }
    stopgrad.pretrain(out=tmp_path / "run", reporter=Recorder(), **{**tiny, **settings, "monitor_images": 64})
    expected = last_state(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-00000004.ckpt").unlink()
    recorder = Recorder()
    run = stopgrad.pretrain(out=tmp_path / "run", resume=True, devices=3 - before, reporter=recorder)
    assert run.metrics["images_seen"] == 4 * 64
    assert any("a step computes the same to rounding" in text for text in recorder.warned)
    found = last_state(tmp_path / "run")
    apart = max(float((value - expected[key]).abs().max()) for key, value in found.items() if "num_" not in key)
    assert apart < 1e-3


@pytest.mark.slow
def test_a_run_with_local_statistics_is_repeated_and_resumed_by_one_process(tmp_path, tiny):
    """The command's whole way, with dropout paths, the guide and a moving average."""
    settings = {**tiny, "device": "cpu", "method": "byol", "source_first": True, "drop_path": 0.1, "steps": 4}
    settings |= {"checkpoint_every_steps": 2, "baselines": False, "final_images": 64, "monitor_images": 64}
    recorder = Recorder()
    stopgrad.pretrain(out=tmp_path / "two", reporter=recorder, devices=2, **settings)
    assert "Groups    one process computes the same with devices = 1, batch_groups = 2" in recorder.said
    expected = last_state(tmp_path / "two")

    def apart(name):
        found = last_state(tmp_path / name).items()
        return max(float((value.float() - expected[key].float()).abs().max()) for key, value in found)

    recorder = Recorder()
    stopgrad.pretrain(out=tmp_path / "one", reporter=recorder, devices=1, batch_groups=2, **settings)
    assert any(text.startswith("Groups    each batch in 2, as 2 processes have them") for text in recorder.said)
    assert apart("one") < 1e-4
    (tmp_path / "two" / "checkpoints" / "step-00000004.ckpt").unlink()
    (tmp_path / "two").rename(tmp_path / "one resumed")
    recorder = Recorder()
    stopgrad.pretrain(out=tmp_path / "one resumed", resume=True, devices=1, batch_groups=2, reporter=recorder)
    assert any("goes on with 1 process (batch_groups 2): a step computes the same" in text for text in recorder.warned)
    assert apart("one resumed") < 1e-4
