"""The main job, end to end, on the real scans of scikit-learn's digits with a tiny network."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from recorder import Recorder
from safetensors.torch import load_file

import stopgrad
from stopgrad.artifacts.checkpoint import load_checkpoint
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.data.open import open_images
from stopgrad.data.sources import ArraySource
from stopgrad.errors import CheckpointError, ConfigError, DataError, Interrupted, NonFiniteLossError
from stopgrad.removed import CANDIDATES

RUN_FILES = {"config.toml", "environment.json", "metrics.jsonl", "summary.json", "encoder.safetensors", "encoder.json"}
NOT_REPEATABLE = ("seconds", "views_per_second")


def weights(run):
    return load_file(run / "encoder.safetensors")


def same_weights(a, b):
    a, b = weights(a), weights(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in NOT_REPEATABLE} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 30 steps (22 make an epoch), logged every 4 and saved every 7."""
    from conftest import TINY

    out = tmp_path_factory.mktemp("runs") / "whole"
    return stopgrad.pretrain(
        out=out, steps=30, log_every_steps=4, checkpoint_every_steps=7, **{**TINY, "reporter": Recorder()}
    )


def test_the_run_folder(finished):
    names = {p.name for p in finished.path.iterdir()}
    assert names >= RUN_FILES | {"checkpoints", "tensorboard"}
    assert sorted(p.name for p in (finished.path / "checkpoints").iterdir()) == [
        "step-00000028.ckpt",
        "step-00000030.ckpt",
    ]
    assert any((finished.path / "tensorboard").glob("events.out.tfevents.*"))


def test_the_log(finished):
    lines = [json.loads(line) for line in (finished.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 22, 24, 28, 30]
    for line in lines:
        assert line.keys() >= {"step", "epoch", "images_seen", "seconds", "loss", "lr", "views_per_second"}
        assert line["images_seen"] == 64 * line["step"]
        assert 0 <= line["guide_balance"] <= 1
    measured = [line["step"] for line in lines if "knn_top1" in line]
    assert measured == [22, 30]
    assert lines[-1].keys() >= {"feature_std", "effective_rank", "alignment", "uniformity", "knn_k", "knn_temperature"}


def test_the_summary(finished):
    summary = json.loads((finished.path / "summary.json").read_text())
    assert summary == finished.metrics
    assert set(summary["knn"]) == {"trained", "untrained", "pixels", "pixels_centred"}
    assert set(summary["knn_few_labels"]) == set(summary["knn"])
    assert summary["knn_protocol"].startswith(
        "k-NN, k = 20, T = 0.2, cosine; bank of 1,437 training images, queries 360 test"
    )
    assert summary["verdict_words"]
    # Raw pixels are better than so short a training makes, and the summary says so.
    assert summary["knn"]["pixels"] > 0.9
    assert "pixels" in summary["verdict_words"].lower()


def test_the_environment(finished):
    environment = json.loads((finished.path / "environment.json").read_text())
    assert torch.__version__.startswith(environment["versions"]["torch"])
    assert environment["device_type"] == "cpu"
    assert environment["command"] == sys.argv


@pytest.mark.slow
def test_the_config_repeats_the_run(finished, tmp_path):
    again = stopgrad.pretrain(out=tmp_path / "again", config=finished.path / "config.toml", reporter=Recorder())
    assert same_weights(finished.path, again.path)
    assert metrics(finished.path) == metrics(again.path)


@pytest.mark.parametrize("stop_after", [1, 10, 22, 26])
@pytest.mark.slow
def test_resuming_is_as_never_having_stopped(finished, tmp_path, monkeypatch, stop_after):
    """Also inside a logging interval, at the end of an epoch and between two checkpoints."""
    from stopgrad.stop import StopRequest

    out = tmp_path / "run"
    steps = iter(range(1, 100))
    monkeypatch.setattr(StopRequest, "requested", lambda self: "the test" if next(steps) == stop_after else None)
    with pytest.raises(Interrupted, match=f"after step {stop_after} of 30"):
        stopgrad.pretrain(out=out, config=finished.path / "config.toml", reporter=Recorder())
    monkeypatch.undo()
    assert not (out / "encoder.safetensors").exists()
    recorder = Recorder()
    stopgrad.pretrain(out=out, resume=True, reporter=recorder)
    assert f"Resumed at step {stop_after} of 30." in recorder.said
    assert same_weights(finished.path, out)
    assert metrics(finished.path) == metrics(out)


@pytest.mark.slow
def test_resuming_from_an_older_checkpoint_after_a_crash(finished, tmp_path):
    """The newest checkpoint is damaged, the log runs ahead of the one before."""
    import shutil

    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    newest = out / "checkpoints" / "step-00000030.ckpt"
    newest.write_bytes(newest.read_bytes()[:1000])
    recorder = Recorder()
    stopgrad.pretrain(out=out, resume=True, reporter=recorder)
    assert any("step-00000030" in text for text in recorder.warned)
    assert "Resumed at step 28 of 30." in recorder.said
    assert same_weights(finished.path, out)
    assert metrics(finished.path) == metrics(out)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "simsiam", "guide": "symmetric"},
        {"method": "byol", "ema_schedule": "cosine", "guide": "random_views"},
        {"method": "byol", "views": 4, "partners": "permutation"},
        {"method": "simsiam", "predictor": False, "guide": "farthest_views", "optimizer": "adamw", "lr": 0.001},
        {
            "optimizer": "lars",
            "lr": 1.0,
            "guide": f"{CANDIDATES}:FallingSoftness",
        },
        {"method": "byol", "source_first": True, "guide": f"{CANDIDATES}:NearestInMemory", "queue_size": 100},
        {"precision": "bf16"},
        {"method": "byol", "source_first": True, "early_size": 8},
        {"method": "byol", "source_first": True, "local_views": 3, "local_size": 6, "turn_probability": 0.75},
        {"method": "dino", "prototypes": 32, "local_views": 2},
    ],
)
@pytest.mark.slow
def test_every_kind_of_run_resumes_to_the_same_weights(tmp_path, tiny, settings):
    arguments = {
        **tiny,
        "steps": 6,
        "checkpoint_every_steps": 3,
        "checkpoint_keep": 5,
        "reporter": Recorder(),
        **settings,
    }
    whole = stopgrad.pretrain(out=tmp_path / "whole", **arguments)
    (whole.path / "checkpoints" / "step-00000006.ckpt").unlink()
    before = weights(whole.path)
    resumed = stopgrad.pretrain(out=whole.path, resume=True, reporter=Recorder())
    after = weights(resumed.path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_encoder_embeds(finished):
    digits = open_images("").test
    images = [digits.read(i) for i in range(5)]
    features = finished.encoder.embed(images, batch_size=2, device="cpu", precision="fp32")
    assert features.shape == (5, finished.encoder.backbone.num_features)
    assert features.dtype == torch.float32
    by_hand = torch.stack([finished.encoder.preprocess(image) for image in images])
    with torch.inference_mode():
        torch.testing.assert_close(finished.encoder.backbone(by_hand), features, rtol=1e-4, atol=1e-5)
    usual = finished.encoder.embed(images, batch_size=2, device="cpu")
    assert torch.cosine_similarity(usual, features).min() > 0.999


@pytest.mark.slow
def test_a_run_starts_from_another_ones_backbone(finished, tmp_path, tiny):
    run = stopgrad.pretrain(out=tmp_path / "run", init=str(finished.path), steps=1, lr=0.0, reporter=Recorder(), **tiny)
    a, b = weights(finished.path), weights(run.path)
    assert torch.equal(a["conv1.weight"], b["conv1.weight"])


def test_init_of_another_network(finished, tmp_path, tiny):
    with pytest.raises(ConfigError, match="cannot be chosen here, it is a resnet10_16"):
        stopgrad.pretrain(out=tmp_path / "run", init=str(finished.path), steps=1, **{**tiny, "backbone": "resnet10_32"})


@pytest.mark.slow
def test_same_seed_same_weights_other_seed_other(finished, tmp_path):
    config = finished.path / "config.toml"
    other = stopgrad.pretrain(out=tmp_path / "other", config=config, seed=1, reporter=Recorder())
    assert not same_weights(finished.path, other.path)


def test_an_existing_run_is_refused(finished):
    with pytest.raises(ConfigError, match="holds a run already"):
        stopgrad.pretrain(out=finished.path)


def test_another_config_is_refused(finished):
    with pytest.raises(CheckpointError, match="batch_size = 64 there, 32 now"):
        stopgrad.pretrain(out=finished.path, resume=True, batch_size=32)


def test_the_same_command_with_resume_is_no_other_config(finished, tmp_path):
    import shutil

    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    stopgrad.pretrain(out=out, resume=True, recipe="digits", steps=30, checkpoint_every_steps=9, reporter=Recorder())


def test_other_images_are_refused(finished, tmp_path, rng):
    source = ArraySource(rng.integers(0, 256, (100, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(CheckpointError, match="other images"):
        stopgrad.pretrain(source, out=finished.path, resume=True)


def test_resume_without_a_run(tmp_path):
    with pytest.raises(ConfigError, match="no run to resume"):
        stopgrad.pretrain(out=tmp_path, resume=True)


@pytest.mark.slow
def test_overwrite_begins_anew(finished, tmp_path, tiny):
    import shutil

    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    (out / "notes.txt").write_text("keep me")
    stopgrad.pretrain(out=out, overwrite=True, steps=2, reporter=Recorder(), **tiny)
    assert (out / "notes.txt").read_text() == "keep me"
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000002.ckpt"] or len(metrics(out)) == 2


@pytest.mark.parametrize(
    "wrong", [{"backbone": "resnet81"}, {"path": "nowhere"}, {"holdout": 5000}, {"init": "nowhere"}]
)
def test_a_run_that_cannot_begin_overwrites_nothing(finished, tmp_path, tiny, wrong):
    import shutil

    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    with pytest.raises((ConfigError, DataError, CheckpointError)):
        stopgrad.pretrain(out=out, overwrite=True, reporter=Recorder(), **{**tiny, **wrong})
    assert same_weights(finished.path, out)
    assert RunDir(out).newest_checkpoint()[0]["progress"]["step"] == 30


@pytest.mark.slow
def test_a_run_that_could_not_begin_is_not_in_the_way_of_the_next(tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="did you mean"):
        stopgrad.pretrain(out=out, reporter=Recorder(), **{**tiny, "backbone": "resnet81"})
    stopgrad.pretrain(out=out, steps=1, reporter=Recorder(), **tiny)


def test_resuming_where_no_checkpoint_can_be_read_is_refused(finished, tmp_path):
    import shutil

    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        stopgrad.pretrain(out=out, resume=True, reporter=Recorder())
    assert metrics(out) == metrics(finished.path)


def test_a_run_of_few_steps_is_not_taken_for_a_collapse(tmp_path, tiny):
    recorder = Recorder()
    run = stopgrad.pretrain(out=tmp_path / "run", steps=2, reporter=recorder, **tiny)
    assert run.metrics["verdict"] in ("learnt", "not_learnt")
    assert not any("ollapsed" in text for text in recorder.warned)


def test_numbers_of_images_that_leave_one_over(tmp_path, tiny, rng):
    source = ArraySource(rng.integers(0, 255, (257, 8, 8, 3), dtype=np.uint8))
    run = stopgrad.pretrain(source, out=tmp_path / "run", steps=1, reporter=Recorder(), **tiny)
    assert run.metrics["num_images"] == 257


@pytest.mark.slow
def test_settings_as_a_runs_own_config_has_them_are_not_warned_of(finished, tmp_path):
    recorder = Recorder()
    stopgrad.pretrain(out=tmp_path / "again", config=finished.path / "config.toml", steps=1, reporter=recorder)
    assert not any("has no effect" in text for text in recorder.warned)


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="exclude"):
        stopgrad.pretrain(out=tmp_path, resume=True, overwrite=True)


@pytest.mark.slow
def test_a_non_finite_loss_stops_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path, tiny, monkeypatch):
    from stopgrad.methods.siamese import Siamese

    forward = Siamese.forward
    calls = iter(range(1, 100))

    def broken(self, views, generator):
        loss, diagnostics = forward(self, views, generator)
        return (loss * float("nan") if next(calls) == 5 else loss), diagnostics

    monkeypatch.setattr(Siamese, "forward", broken)
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLossError, match="at step 5"):
        stopgrad.pretrain(out=out, steps=9, checkpoint_every_steps=2, reporter=Recorder(), **tiny)
    state = RunDir(out).newest_checkpoint()[0]
    assert state["progress"]["step"] == 4
    assert all(torch.isfinite(t).all() for t in state["method"].values() if t.is_floating_point())


def test_weights_that_overflow_are_not_saved(tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLossError):
        stopgrad.pretrain(out=out, steps=40, checkpoint_every_steps=1, lr=1e30, reporter=Recorder(), **tiny)
    for path in (out / "checkpoints").iterdir():
        state = load_checkpoint(path)
        assert all(torch.isfinite(t).all() for t in state["method"].values() if t.is_floating_point())


def test_a_time_limit_saves_and_says_so(tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="the time limit"):
        stopgrad.pretrain(out=out, steps=10_000, time_limit_seconds=0.5, reporter=Recorder(), **tiny)
    assert len(list((out / "checkpoints").iterdir())) == 1


@pytest.mark.slow
def test_collapse_is_warned_of_when_it_happens(tmp_path, tiny, monkeypatch):
    from stopgrad.methods.siamese import Siamese

    project = Siamese.project

    def collapsing(self, images):
        features, projections = project(self, images)
        if next(calls) < 9:  # the untrained network: six batches to settle BatchNorm, three to measure
            return features, projections
        return torch.ones_like(features), projections

    calls = iter(range(1000))
    monkeypatch.setattr(Siamese, "project", collapsing)
    recorder = Recorder()
    run = stopgrad.pretrain(out=tmp_path / "run", steps=23, reporter=recorder, **tiny)
    assert any(text.startswith("step 22: Collapsed") for text in recorder.warned)
    assert run.metrics["verdict"] == "collapsed"


@pytest.fixture
def photos(tmp_path, rng):
    """A user's folder: two classes, several sizes, grey and clear images, some broken."""
    root = tmp_path / "photos"
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (root / name).mkdir(parents=True)
        for i in range(20):
            noise = rng.integers(-30, 30, (80 + i, 90, 3))
            Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(root / name / f"{i:02}.png")
    Image.new("L", (40, 40), 9).save(root / "red" / "grey.png")
    Image.new("RGBA", (40, 40)).save(root / "blue" / "clear.webp")
    (root / "red" / "empty.jpg").write_bytes(b"")
    (root / "blue" / "cut.png").write_bytes((root / "blue" / "00.png").read_bytes()[:200])
    return root


SMALL_PHOTOS = {"image_size": 32, "steps": 3, "batch_size": 16}


@pytest.mark.parametrize("memory_gb", [4.0, 1e-9])
@pytest.mark.slow
def test_a_folder_of_photos(photos, tmp_path, tiny, memory_gb):
    recorder = Recorder()
    run = stopgrad.pretrain(
        photos, out=tmp_path / "run", reporter=recorder, **{**tiny, **SMALL_PHOTOS, "memory_gb": memory_gb}
    )
    assert any("photos_small" in text for text in recorder.said)
    assert {item["name"].rsplit("/")[-1] for item in run.metrics["skipped"]} == {"empty.jpg", "cut.png"}
    assert run.metrics["knn"]["pixels"] > 0.8
    assert "no test split" in run.metrics["knn_protocol"]
    assert run.encoder.embed(photos / "red" / "00.png").shape[0] == 1
    with pytest.raises(DataError, match=r"cut\.png"):
        run.encoder.embed(photos)


def test_strict_refuses_unreadable_files(photos, tmp_path, tiny):
    with pytest.raises(DataError, match="cannot be read"):
        stopgrad.pretrain(photos, out=tmp_path / "run", strict=True, **{**tiny, **SMALL_PHOTOS})


def test_unlabelled_photos_get_a_verdict_without_knn(photos, tmp_path, tiny):
    run = stopgrad.pretrain(photos / "red", out=tmp_path / "run", reporter=Recorder(), **{**tiny, **SMALL_PHOTOS})
    assert run.metrics["knn"] is None
    assert run.metrics["verdict"] in ("healthy", "not_learnt", "partly_collapsed", "collapsed")


@pytest.mark.slow
def test_fewer_images_than_a_batch(photos, tmp_path, tiny):
    recorder = Recorder()
    stopgrad.pretrain(photos, out=tmp_path / "run", reporter=recorder, **{**tiny, **SMALL_PHOTOS, "batch_size": 512})
    assert any("shrinks to 42" in text for text in recorder.warned)


def test_one_image_is_too_few(tmp_path, tiny):
    Image.new("RGB", (40, 40)).save(tmp_path / "one.png")
    with pytest.raises(DataError, match=r"1 readable image .* at least 4"):
        stopgrad.pretrain(tmp_path, out=tmp_path / "run", **{**tiny, **SMALL_PHOTOS})


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_nothing_to_train_on(tmp_path, content):
    folder = tmp_path / "photos"
    folder.mkdir()
    if content is not None:
        (folder / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"holds no images|none of 1 images can be read"):
        stopgrad.pretrain(folder, out=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists() or content is not None


@pytest.mark.slow
def test_images_held_out_are_not_trained_on(tmp_path, tiny):
    run = stopgrad.pretrain(out=tmp_path / "run", holdout=100, steps=2, reporter=Recorder(), **tiny)
    assert run.metrics["num_images"] == 1337
    assert "queries 100 training images held out" in run.metrics["knn_protocol"]


@pytest.mark.slow
def test_settings_without_effect_are_warned_of(tmp_path, tiny):
    recorder = Recorder()
    stopgrad.pretrain(out=tmp_path / "run", steps=1, epochs=5, reporter=recorder, **tiny)
    assert "epochs has no effect: steps = 1 sets the length" in recorder.warned


@pytest.mark.parametrize("device", ["cuda:7", "tpu", "mps"])
def test_a_device_that_is_not_there(tmp_path, device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="device"):
        stopgrad.pretrain(out=tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


def test_one_size_only(tmp_path):
    arguments = {"out": tmp_path / "run", "backbone": "test_vit", "stem": "standard", "batch_size": 64}
    with pytest.raises(ConfigError, match="images of one size"):
        stopgrad.pretrain(**arguments, image_size=32, early_size=16)
    with pytest.raises(ConfigError, match="image_size = 12 does not fit"):
        stopgrad.pretrain(**arguments, image_size=12)


@pytest.mark.parametrize("backbone", ["resnet81", "test_vti"])
@pytest.mark.slow
def test_an_unknown_backbone(tmp_path, backbone):
    with pytest.raises(ConfigError, match="did you mean"):
        stopgrad.pretrain(out=tmp_path / "run", backbone=backbone)


def start(out, *arguments):
    command = [sys.executable, "-m", "stopgrad", "pretrain", "--out", str(out), "--backbone", "resnet10_16",
               "--projection-dim", "32", "--projector-width", "32", "--batch-size", "64", *arguments]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_steps(process, out, steps=3):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "metrics.jsonl").is_file() and len((out / "metrics.jsonl").read_text().splitlines()) >= steps:
            return
        time.sleep(0.1)
    raise AssertionError(f"training did not begin: {process.communicate()[0]}")


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    out = tmp_path / "run"
    first = start(out, "--epochs", "1000", "--log-every-steps", "1")
    wait_for_steps(first, out)
    second = start(out, "--resume", "--epochs", "1000")
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 2, output
    assert "another process is training in" in output
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=60) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.slow
def test_signals_save_first_and_exit_3(tmp_path, number):
    out = tmp_path / "run"
    process = start(out, "--epochs", "1000", "--log-every-steps", "1")
    wait_for_steps(process, out)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3, output
    assert "resume continues" in output
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert (out / "checkpoints" / f"step-{len(lines):08}.ckpt").is_file()


@pytest.mark.parametrize("more", [{}, {"method": "byol", "local_views": 2, "local_size": 6}], ids=["views", "local"])
@pytest.mark.slow
def test_two_processes_train_one_network_and_resume_to_the_same_weights(tmp_path, tiny, more):
    """Called from a test, which is no importable main program: scripts and notebooks may do the same."""
    out, recorder = tmp_path / "run", Recorder()
    run = stopgrad.pretrain(
        out=out,
        devices=2,
        steps=6,
        checkpoint_every_steps=3,
        checkpoint_keep=5,
        device="cpu",
        reporter=recorder,
        **tiny,
        **more,
    )
    assert run.metrics["images_seen"] == 6 * 64
    assert any(text.startswith("Training  6 steps of 64 images") for text in recorder.said)
    assert json.loads((out / "environment.json").read_text())["command"] == sys.argv
    before, lines = weights(out), metrics(out)
    (out / "checkpoints" / "step-00000006.ckpt").unlink()
    stopgrad.pretrain(out=out, resume=True, reporter=Recorder())
    after = weights(out)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert metrics(out) == lines


@pytest.mark.slow
def test_an_interrupted_run_of_two_processes_is_saved(tmp_path):
    out = tmp_path / "run"
    process = start(out, "--devices", "2", "--steps", "5000", "--log-every-steps", "1", "--device", "cpu")
    wait_for_steps(process, out)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    assert "Ctrl-C" in output
    assert len(list((out / "checkpoints").iterdir())) == 1


def test_images_in_memory_are_for_one_process(tmp_path, tiny, rng):
    source = ArraySource(rng.integers(0, 255, (20, 12, 12, 3), dtype=np.uint8))
    with pytest.raises(ConfigError, match="in memory"):
        stopgrad.pretrain(source, out=tmp_path / "run", devices=2, reporter=Recorder(), **tiny)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda(tmp_path, tiny):
    run = stopgrad.pretrain(
        out=tmp_path / "run", steps=30, device="cuda", reporter=Recorder(), **{**tiny, "precision": "auto"}
    )
    assert run.metrics["knn_top1"] > 0.3


def test_the_callers_random_generators_are_not_touched(tmp_path, tiny):
    numpys = np.random.get_state
    before = torch.get_rng_state(), numpys()[1].copy(), random.getstate()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    stopgrad.pretrain(out=tmp_path / "run", steps=2, **{**tiny, "reporter": Recorder()})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(numpys()[1], before[1])
    assert random.getstate() == before[2]
    for one, other in zip(torch.cuda.get_rng_state_all() if gpus else [], gpus, strict=True):
        assert torch.equal(one, other)


def test_environment_variables_are_not_touched(finished):
    assert "RANK" not in os.environ
