"""Where decoded images are kept makes no difference to what a run computes."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from recorder import Recorder
from safetensors.torch import load_file

import stopgrad
from stopgrad.errors import ConfigError, Interrupted


@pytest.fixture(params=["even", "uneven"])
def folder(request, tmp_path, rng):
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(70):
        shape = (24, 20 + (i % 5 if request.param == "uneven" else 0), 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(root / f"{i:02}.png")
    return root


def options(tiny, **more):
    small = {"image_size": 12, "batch_size": 16, "steps": 5, "recipe": "photos_small", "devices": 1}
    return {**tiny, **small, "reporter": Recorder(), **more}


def assert_same(a, b):
    one, other = (load_file(run / "encoder.safetensors") for run in (a, b))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("folder", "holdout"), [("even", 0), ("uneven", 6)], indirect=["folder"])
@pytest.mark.slow
def test_weights_are_the_same_to_the_bit(folder, tmp_path, tiny, holdout):
    settings = options(tiny, holdout=holdout)
    runs = {}
    for name, where in {
        "memory": {"cache": "off"},
        "every epoch": {"cache": "off", "memory_gb": 1e-9},
        "built": {"cache": str(tmp_path / "cache")},
        "cached": {"cache": str(tmp_path / "cache")},
        "cached, no memory": {"cache": str(tmp_path / "cache"), "memory_gb": 1e-9},
    }.items():
        recorder = Recorder()
        runs[name] = stopgrad.pretrain(folder, out=tmp_path / name, **{**settings, **where, "reporter": recorder})
        held = {"memory": "in memory", "every epoch": "decoded every epoch"}.get(name, f"cached in {tmp_path}/cache")
        assert recorder.said[0].endswith(held)
        assert [w for w in recorder.warned if "cache" in w] == []
        assert_same(runs["memory"].path, runs[name].path)
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir()]) == 1


@pytest.mark.slow
def test_a_run_goes_on_with_another_cache_or_none(folder, tmp_path, tiny, monkeypatch):
    from stopgrad.stop import StopRequest

    whole = stopgrad.pretrain(folder, out=tmp_path / "whole", **options(tiny, cache="off"))
    steps = iter(range(1, 100))
    monkeypatch.setattr(StopRequest, "requested", lambda self: "the test" if next(steps) in (2, 4) else None)
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        stopgrad.pretrain(folder, out=out, **options(tiny, cache=str(tmp_path / "a")))
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(Interrupted):
        stopgrad.pretrain(out=out, resume=True, cache=str(tmp_path / "b"), reporter=Recorder())
    stopgrad.pretrain(out=out, resume=True, cache="off", cache_gb=1.0, reporter=Recorder())
    assert_same(whole.path, out)


@pytest.mark.slow
def test_two_processes_share_an_entry(folder, tmp_path, tiny):
    recorder = Recorder()
    cache = str(tmp_path / "cache")
    shared = stopgrad.pretrain(
        folder, out=tmp_path / "shared", **options(tiny, devices=2, cache=cache, reporter=recorder)
    )
    plain = stopgrad.pretrain(folder, out=tmp_path / "plain", **options(tiny, devices=2, cache="off"))
    assert_same(shared.path, plain.path)
    assert recorder.said[0].endswith(f"cached in {cache}")
    assert not any("waiting" in text for text in recorder.said)
    assert recorder.warned == []
    assert ("reading images", 70, 70, "") in recorder.steps


@pytest.mark.slow
def test_a_folder_that_cannot_be_used_leaves_an_earlier_run_alone(folder, tmp_path, tiny):
    run = stopgrad.pretrain(folder, out=tmp_path / "run", **options(tiny))
    before = sorted((p.name, p.stat().st_mtime_ns) for p in run.path.rglob("*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="it is not a folder"):
        stopgrad.pretrain(folder, out=run.path, overwrite=True, **options(tiny, cache=str(tmp_path / "file")))
    assert sorted((p.name, p.stat().st_mtime_ns) for p in run.path.rglob("*")) == before
