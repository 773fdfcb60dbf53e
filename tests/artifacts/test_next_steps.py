"""What to do next: for every verdict one to three commands, each of which the command line takes."""

import json
import shlex

import pytest
from photos import write_photos, write_run

from stopgrad.artifacts.next_steps import MOST, steps_of_encoder, steps_of_run
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cli.main import app
from stopgrad.cli.main import run as run_cli
from stopgrad.data.place import IN_MEMORY

LABELLED = {"num_images": 5000, "knn": {"trained": 0.6, "untrained": 0.3, "pixels": 0.4, "pixels_centred": 0.5}}
BELOW_PIXELS = {"num_images": 500, "knn": {"trained": 0.4, "untrained": 0.3, "pixels": 0.4, "pixels_centred": 0.5}}
STATES = ("learnt", "healthy", "not_learnt", "worse", "kept_start", "collapsed", "partly_collapsed", "not_finite",
          "stopped", "failed")  # fmt: skip


def commands_of(steps):
    """Words of each command; the command line has taken them, without doing anything."""
    assert 1 <= len(steps) <= MOST
    found = []
    for step in steps:
        assert step.why.endswith(".")
        program, *words = shlex.split(step.command)
        assert program == "stopgrad"
        app.parse_args(words, exit_on_error=False, print_error=False)
        found.append(words)
    return found


@pytest.fixture
def run(tmp_path):
    return RunDir(write_run(tmp_path / "my run", tmp_path / "photos"))


def of_run(run, state, summary=None, lines=(), **settings):
    config = run.read_config().replace(**settings)
    return commands_of(steps_of_run(run, config, state, summary, lines))


@pytest.mark.parametrize(
    ("state", "summary"), [*((state, None) for state in STATES), ("learnt", LABELLED), ("not_learnt", BELOW_PIXELS)]
)
def test_commands_are_such_as_the_command_line_takes(run, state, summary):
    for words in of_run(run, state, summary):
        assert any(str(run.path) in word for word in words) or "adapt" in words


def test_a_run_that_goes_on_has_none(run):
    assert steps_of_run(run, run.read_config(), "running", None) == []


def test_after_a_collapse(run):
    first, second, third = of_run(run, "collapsed", method="simsiam", predictor=False, lr=0.2)
    assert first[-3:] == ["--predictor", "--out", f"{run.path}-predictor"]
    assert second[second.index("--lr") + 1] == "0.05"
    assert third[:2] == ["preview", str(run.read_config().data.path)]
    assert of_run(run, "collapsed", method="simsiam")[0][3:5] == ["--method", "byol"]
    assert "nearest_views" in of_run(run, "partly_collapsed", method="byol", guide="symmetric")[0]
    assert "--lr" in of_run(run, "collapsed", method="vicreg")[0]


def test_pixels_that_do_better_are_no_success(run):
    first, second, third = of_run(run, "learnt", BELOW_PIXELS, image_size=96, epochs=10)
    assert first == ["pretrain", run.read_config().data.path, "--recipe", "adapt", "--out", f"{run.path}-adapted"]
    assert second[second.index("--epochs") + 1] == "40"
    assert third[0] == "preview"
    # Pretrained weights are of photos, and many images need none.
    assert "adapt" not in of_run(run, "learnt", BELOW_PIXELS, image_size=12)[0]
    assert "adapt" not in of_run(run, "learnt", {**BELOW_PIXELS, "num_images": 10_000}, image_size=96)[0]
    assert "--steps" in of_run(run, "not_learnt", LABELLED, steps=7)[0]


def test_a_success_is_used(run):
    assert [words[0] for words in of_run(run, "learnt", LABELLED)] == ["evaluate", "search", "embed"]
    assert "few-label" in of_run(run, "healthy", {"knn": {}})[0]


def test_a_training_that_was_too_long(run):
    lines = [{"step": step, "knn_top1": knn} for step, knn in ((10, 0.5), (20, 0.62), (30, 0.55))] + [{"step": 31}]
    steps = steps_of_run(run, run.read_config(), "learnt", LABELLED, lines)
    assert steps[0].why == "k-NN was 62.0% at step 20 and 55.0% at the end: keep the best."
    assert commands_of(steps)[0][3:5] == ["--keep", "best"]
    assert "best" not in of_run(run, "learnt", LABELLED, lines[:2])[0]
    assert "best" not in of_run(run, "learnt", LABELLED, [{"step": 1, "knn_top1": float("nan")}, *lines[1:2]])[0]
    assert of_run(run, "learnt", LABELLED, lines, keep="best")[0][0] == "evaluate"


def test_images_that_were_in_memory_are_to_be_named(run):
    run.write_config(run.read_config().replace(path=""))
    run.write_json("environment.json", {"data": IN_MEMORY})
    for state in STATES:
        assert all(" DATA" in step.command for step in steps_of_run(run, run.read_config(), state, LABELLED))


@pytest.mark.parametrize("more", [{}, {"labelled": True}, {"labelled": True, "beats_pixels": False}], ids=repr)
@pytest.mark.parametrize("state", ["healthy", "collapsed", "partly_collapsed", "not_finite"])
def test_an_encoder_that_is_no_run(state, more):
    for on_page in (True, False):
        found = commands_of(steps_of_encoder("timm:x", "my photos", state, image_size=96, on_page=on_page, **more))
        assert any("my photos" in words for words in found)
        assert ["adapt" in words for words in found].count(True) == 1
    small = commands_of(steps_of_encoder("timm:x", "my photos", state, image_size=32, on_page=True, **more))
    assert not any("adapt" in words for words in small)


def test_check_prints_them(tmp_path, capsys, monkeypatch):
    write_photos(tmp_path / "photos", num=40)
    run = RunDir(write_run(tmp_path / "run", tmp_path / "photos"))
    assert run_cli(["check", str(run.path)]) == 0
    assert f"    stopgrad preview {tmp_path / 'photos'} " in capsys.readouterr().out, "random weights fall short"
    monkeypatch.setattr("stopgrad.evaluate.health.find_feature_collapse", lambda *more: None)
    run.write_json("summary.json", {"verdict": "learnt", "verdict_words": "", **LABELLED})
    assert run_cli(["check", str(run.path)]) == 0
    assert f"    stopgrad evaluate linear {run.path}\n" in capsys.readouterr().out
    run.summary_file.write_text("{")
    assert run_cli(["check", str(run.encoder_file), str(tmp_path / "photos"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["next"]
    assert [step["command"].split()[1] for step in found] == ["report", "embed"]


def test_the_page_has_them(tmp_path, monkeypatch):
    from recorder import Recorder

    import stopgrad

    write_photos(tmp_path / "photos", num=40)
    run = RunDir(write_run(tmp_path / "run", tmp_path / "photos"))
    monkeypatch.setattr("stopgrad.evaluate.health.find_feature_collapse", lambda *more: None)
    run.write_json("summary.json", {"verdict": "kept_start", "verdict_words": ""})
    stopgrad.write_report(run.path, points=20, reporter=Recorder())
    assert f">stopgrad embed {run.path} --out {run.path}-features.parquet</pre>" in run.report_file.read_text()
    out = tmp_path / "page.html"
    stopgrad.write_encoder_report(run.encoder_file, tmp_path / "photos", out=out, reporter=Recorder())
    assert f">stopgrad embed {run.encoder_file} {tmp_path / 'photos'} --out features.parquet" in out.read_text()


def test_a_stopped_run_goes_on(tmp_path, capsys):
    from conftest import TINY
    from recorder import Recorder

    import stopgrad

    write_photos(tmp_path / "photos", num=40)
    out = tmp_path / "run"
    settings = {**TINY, "image_size": 12, "reporter": Recorder()}
    with pytest.raises(stopgrad.stop.Interrupted):
        stopgrad.pretrain(tmp_path / "photos", out=out, epochs=10_000, time_limit_seconds=0.5, **settings)
    run = RunDir(out)
    (words,) = of_run(run, "stopped")
    capsys.readouterr()
    assert run_cli([*words, "--time-limit-seconds", "0.1"]) == 3
    assert "Resumed at step" in capsys.readouterr().out
