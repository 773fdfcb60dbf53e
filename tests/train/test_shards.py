"""Pretraining on sets in shards: to the same weights whether stopped or not, by one process or two, far or near."""

import pytest
import torch
from conftest import TINY
from recorder import Recorder
from safetensors.torch import load_file
from serving import serving
from sharded import write_parquet, write_tars

import stopgrad
from stopgrad.cli.main import run as run_command
from stopgrad.errors import DataError, Interrupted

SHARDS = [20] * 8
SETTINGS = {
    **TINY, "batch_size": 16, "steps": 14, "image_size": 16, "early_size": 0, "shuffle_buffer": 40, "device": "cpu",
    "recipe": "digits", "devices": 1, "baselines": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    write_tars(tmp_path / "set", SHARDS)
    return tmp_path / "set"


def trained(data, out, **more):
    recorder = Recorder()
    run = stopgrad.pretrain(str(data), out=out, reporter=recorder, **{**SETTINGS, **more})
    return run, recorder


def same_weights(a, b):
    a, b = (load_file(run / "encoder.safetensors") for run in (a, b))
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_stopped_in_the_middle_of_an_epoch_it_goes_on_to_the_same_weights(folder, tmp_path, monkeypatch):
    from stopgrad.stop import StopRequest

    whole, recorder = trained(folder, tmp_path / "whole")
    assert any("160 images (2 classes, for monitoring only), decoded every epoch" in text for text in recorder.said)
    assert "knn_top1" in whole.metrics["final"]
    steps = iter(range(1, 100))
    monkeypatch.setattr(StopRequest, "requested", lambda self: "the test" if next(steps) == 7 else None)
    with pytest.raises(Interrupted, match="after step 7 of 14"):
        trained(folder, tmp_path / "run")
    monkeypatch.undo()
    stopgrad.pretrain(out=tmp_path / "run", resume=True, reporter=Recorder())
    assert same_weights(whole.path, tmp_path / "run")


@pytest.mark.slow
def test_two_processes_train_on_the_same_shards_and_resume_to_the_same_weights(folder, tmp_path):
    out = tmp_path / "run"
    run, _ = trained(folder, out, devices=2, checkpoint_every_steps=7, checkpoint_keep=5)
    assert run.metrics["images_seen"] == 14 * 16
    before = load_file(out / "encoder.safetensors")
    (out / "checkpoints" / "step-00000014.ckpt").unlink()
    stopgrad.pretrain(out=out, resume=True, reporter=Recorder())
    after = load_file(out / "encoder.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_remote_shards_give_the_weights_of_local_ones(folder, tmp_path):
    pytest.importorskip("aiohttp")
    near, _ = trained(folder, tmp_path / "near")
    with serving(folder) as served:
        far, _ = trained(f"{served.address}/train-{{000..007}}.tar", tmp_path / "far", shard_cache_gb=0.001)
    assert same_weights(near.path, far.path)


@pytest.mark.slow
def test_parquet_shards_from_the_command_line(tmp_path, capsys):
    for i in range(6):
        write_parquet(tmp_path / "set" / f"train-{i}.parquet", range(20 * i, 20 * i + 20))
    given = ["--steps", "4", "--batch-size", "16", "--backbone", "resnet10_16", "--image-size", "16", "--devices", "1"]
    command = [
        "pretrain",
        f"{tmp_path}/set/train-{{0..5}}.parquet",
        "--out",
        str(tmp_path / "run"),
        "--recipe",
        "digits",
    ]
    assert run_command([*command, *given, "--shuffle-buffer", "30", "--early-size", "0"]) == 0
    assert (tmp_path / "run" / "report.html").is_file()
    assert run_command(["check", str(tmp_path / "run"), "--images", "40"]) == 0
    capsys.readouterr()


@pytest.mark.slow
def test_a_truncated_shard_is_named_at_the_end_or_refused(folder, tmp_path):
    damaged = folder / "train-003.tar"
    damaged.write_bytes(damaged.read_bytes()[:9000])
    run, _ = trained(folder, tmp_path / "run", steps=2)
    assert [item["name"] for item in run.metrics["skipped"]] == [str(damaged)]
    with pytest.raises(DataError, match=r"train-003\.tar cannot be read as a whole"):
        trained(folder, tmp_path / "strict", steps=2, strict=True)


@pytest.mark.slow
def test_final_figures_are_of_a_sample(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("stopgrad.train.baselines.MAX_STREAMED", 50)
    run, _ = trained(folder, tmp_path / "run", steps=2)
    assert run.metrics["knn_is_sample"]
    assert "bank of 40 of 150 training images" in run.metrics["knn_protocol"]


def test_a_buffer_without_shards_is_warned_of(tmp_path):
    recorder = Recorder()
    stopgrad.pretrain(out=tmp_path / "run", reporter=recorder, **{**SETTINGS, "steps": 1, "image_size": 8})
    assert any(text.startswith("shuffle_buffer has no effect") for text in recorder.warned)


def test_a_wrong_address_is_said_before_torch_is_imported(tmp_path, capsys):
    assert run_command(["pretrain", "https://host/a.zip", "--out", str(tmp_path / "run")]) == 2
    assert run_command(["pretrain", str(tmp_path / "none-{0..3}.tar"), "--out", str(tmp_path / "run")]) == 1
    printed = capsys.readouterr().err
    assert "needs addresses of .tar or .parquet files" in printed
    assert "4 of 4 shards do not exist" in printed
    assert "Traceback" not in printed
