import json
from dataclasses import replace

import numpy as np
import pytest
from recorder import Recorder

import stopgrad.studies.conduct as module
from stopgrad.cli.main import run
from stopgrad.data.open import open_images
from stopgrad.data.sources import ArraySource, Splits
from stopgrad.errors import ConfigError, DataError
from stopgrad.studies.cells import Images
from stopgrad.studies.conduct import conduct, plan_study
from stopgrad.studies.worker import splits_of

SMALL = {"arms": ("simsiam_gsg_2v", "simsiam_random_2v"), "epochs": 1, "seeds": 1, "jobs": 2}


@pytest.mark.slow
def test_a_study_of_real_runs(tmp_path):
    plan = plan_study("main", out=tmp_path, **SMALL)
    assert len(plan.missing) == 2
    results, failed = conduct(plan, command="stopgrad study main", reporter=Recorder())
    assert failed == 0
    assert results["complete"]
    arm = results["arms"][0]
    assert 0.3 < arm["figures"]["knn_top1"]["mean"] < 1
    assert 0.3 < arm["figures"]["linear_top1"]["mean"] < 1
    assert arm["passes"] == 6 * 1024  # eight batches of 128, each image 2 forwards and 2 backwards
    assert "1,077 images trained on, queries 360 training images held out" in results["protocol"]
    assert json.loads((tmp_path / "main-digits-1-epochs-some.json").read_text())["arms"] == json.loads(
        json.dumps(results["arms"])
    )
    assert "<svg" in (tmp_path / "main-digits-1-epochs-some.svg").read_text()
    assert "simsiam_gsg_2v" in (tmp_path / "main-digits-1-epochs-some.html").read_text()
    # Cells that another study shares are not run again.
    shared = plan_study("no-predictor", out=tmp_path, **SMALL)
    assert shared.missing == []
    # A cell's encoder stays, its checkpoints do not.
    run_folder = plan.store.run_of(plan.cells[0])
    assert (run_folder / "encoder.safetensors").exists()
    assert not (run_folder / "checkpoints").exists()


def test_held_out_images_are_the_same_for_all_and_not_trained_on():
    splits = splits_of("", Images(0, 360))
    assert len(splits.train) == 1077
    assert len(splits.test) == 360
    assert not set(splits.train.indices) & set(splits.test.indices)
    part = splits_of("", Images(500, 360))
    assert part.test.indices == splits.test.indices
    assert len(part.train) == 140


def test_judged_by_the_test_images_all_others_are_trained_on():
    splits = splits_of("", Images(0, 360, "test"))
    assert len(splits.train) == 1437
    assert len(splits.test) == len(open_images("").test)


def test_a_scale_that_is_too_large_for_the_images():
    with pytest.raises(DataError, match="this scale needs 5,000"):
        splits_of("", Images(5000, 360))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "mian"}, "unknown study"),
        ({"name": "main", "scale": "tiny"}, "unknown scale"),
        ({"name": "main", "scale": "small"}, "needs CIFAR-10"),
        ({"name": "main", "seeds": 0}, "at least 1 seed"),
        ({"name": "main", "arms": ("simsiam_gsg",)}, "has no arm"),
        ({"name": "main", "judged_by": "eye"}, "judged_by"),
        ({"name": "main", "data": "photos"}, "images of its own"),
    ],
)
def test_what_cannot_be_planned(arguments, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        plan_study(out=tmp_path, **arguments)
    assert not any(tmp_path.iterdir())


def test_data_that_is_not_there_is_told_before_any_cell(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="nowhere"):
        plan_study("main", scale="small", data=str(tmp_path / "nowhere"), out=tmp_path / "s")
    monkeypatch.setattr(module, "open_images", lambda _: open_images(""))
    with pytest.raises(DataError, match=r"1,437 training images: scale 'small' needs 15,000"):
        plan_study("main", scale="small", data="digits", out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_data_that_nothing_could_be_judged_by_is_told_before_any_cell(tmp_path, monkeypatch):
    splits = open_images("")
    monkeypatch.setattr(module, "open_images", lambda _: replace(splits, test=None))
    with pytest.raises(DataError, match="no test images"):
        plan_study("main", judged_by="test", out=tmp_path / "s")
    unlabelled = ArraySource(np.zeros((1437, 1, 1), np.uint8))
    monkeypatch.setattr(module, "open_images", lambda _: Splits("set", unlabelled, splits.test))
    with pytest.raises(DataError, match="no labels"):
        plan_study("main", out=tmp_path / "s")


def test_data_sets_share_no_cells(tmp_path, monkeypatch):
    keys = []
    for labels in ([0, 1] * 10_000, [1, 0] * 10_000, [0, 1] * 10_000):
        images = ArraySource(np.zeros((20_000, 1, 1), np.uint8), labels, ["a", "b"])
        monkeypatch.setattr(module, "open_images", lambda _, images=images: Splits("set", images))
        plan = plan_study("main", scale="small", data="set", out=tmp_path, seeds=1)
        keys.append({cell.key for cell in plan.cells})
    assert keys[0] == keys[2]
    assert not keys[0] & keys[1]


def test_arms_that_are_one_at_a_short_length_are_one_cell(tmp_path):
    plan = plan_study("batch-size", arms=["simclr_b0.25", "simclr_b0.25_steps"], epochs=1, seeds=1, out=tmp_path)
    assert len(plan.cells) == 2
    assert len(plan.missing) == 1


@pytest.mark.slow
def test_a_failure_stays_until_it_is_tried_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("stopgrad.studies.process.WORKER", "celled")
    monkeypatch.setattr(module, "draw_study", lambda *_: None)
    arguments = ["study", "main", "--arm", "untrained", "--seeds", "1", "--out", str(tmp_path), "--json"]
    plan = plan_study("main", out=tmp_path, arms=["untrained"], seeds=1)
    plan.store.write(plan.cells[0], {"error": "DataError: none"})
    assert run(arguments) == 1
    out = capsys.readouterr()
    assert json.loads(out.out)["arms"][0]["failed"] == [{"seed": 0, "error": "DataError: none"}]
    assert "--retry runs it again" in out.err
    assert run([*arguments, "--retry"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"]


def test_some_arms_do_not_replace_the_results_of_all(tmp_path):
    files = {plan_study("main", out=tmp_path, arms=arms).results_file.name for arms in ((), ("untrained",))}
    assert files == {"main-digits.json", "main-digits-some.json"}


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_a_time_limit_that_is_none(limit, tmp_path):
    with pytest.raises(ConfigError, match="time_limit_seconds"):
        conduct(plan_study("main", out=tmp_path / "s"), time_limit_seconds=limit)
    assert not (tmp_path / "s").exists()


def test_the_plan_runs_nothing(tmp_path, capsys):
    assert run(["study", "no-predictor", "--plan", "--json", "--seeds", "2", "--out", str(tmp_path / "s")]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["cells"]) == 42
    assert all(cell["missing"] for cell in plan["cells"])
    assert plan["expected_seconds"] > 60
    assert run(["study", "guide", "--plan", "--out", str(tmp_path / "s")]) == 0
    assert "nearest to the partner (GSG)" in capsys.readouterr().out
    assert not (tmp_path / "s").exists()


def test_a_plan_needs_no_data_but_a_run_does(tmp_path, capsys):
    assert run(["study", "main", "--scale", "full", "--plan", "--json", "--out", str(tmp_path / "s")]) == 0
    cell = json.loads(capsys.readouterr().out)["cells"][1]
    assert (cell["arm"], cell["key"], cell["missing"]) == ("simsiam_symmetric_2v", None, True)
    assert cell["expected_seconds"] == pytest.approx(60 + 200 * 45_000 * 6 / 60_000)
    assert run(["study", "main", "--scale", "full", "--plan", "--out", str(tmp_path / "s")]) == 0
    assert "Without --data" in capsys.readouterr().out
    plan = plan_study("main", scale="small", out=tmp_path / "s", without_data=True)
    with pytest.raises(ConfigError, match="needs CIFAR-10"):
        conduct(plan)
    assert not (tmp_path / "s").exists()
