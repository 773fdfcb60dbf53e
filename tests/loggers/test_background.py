"""A logger that fails or does not answer: the run goes on, and the user is told once."""

import time

import fake_loggers
import pytest
from recorder import Recorder

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.errors import ConfigError
from stopgrad.loggers import background, choice
from stopgrad.loggers.background import Loggers
from stopgrad.loggers.choice import LOGGERS, Kind, check_loggers
from stopgrad.loggers.protocol import numbers_of
from stopgrad.settings import LOGGER_NAMES
from stopgrad.train.request import check_request

KINDS = {
    "good": Kind("fake_loggers:Good"),
    "bad": Kind("fake_loggers:Bad"),
    "gone": Kind("no_such_module:Logger"),
}
CONFIG = {"recipe": "", "lr": 0.1}


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    monkeypatch.setattr(background, "LOGGERS", KINDS)
    monkeypatch.setattr(fake_loggers, "CALLS", [])
    monkeypatch.setattr(fake_loggers, "TROUBLE", {})


def logged(tmp_path, *names, lines=3):
    """A run that logs a few lines, and what the user was told."""
    recorder = Recorder()
    loggers = Loggers(names, RunDir(tmp_path / "a-run"), CONFIG, 2, recorder)
    for step in range(3, 3 + lines):
        loggers.log({"step": step, "loss": -0.5, "knn_k": 20})
    loggers.finish("finished", {"verdict": "learnt"})
    return recorder


def raising(error):
    def fail():
        raise error

    return fail


def test_a_logger_is_told_everything_in_order(tmp_path):
    recorder = logged(tmp_path, "good")
    start, *lines, finish = fake_loggers.CALLS
    assert start == ("start", "a-run", CONFIG, 2)
    assert lines == [("log", step, {"loss": -0.5, "knn_k": 20.0}) for step in (3, 4, 5)]
    assert finish == ("finish", "finished", {"verdict": "learnt"})
    assert recorder.said == ["Logging   good: in memory"]
    assert recorder.warned == []


def test_none_is_nothing(tmp_path):
    recorder = logged(tmp_path, "none")
    assert fake_loggers.CALLS == recorder.said == recorder.warned == []


@pytest.mark.parametrize("call", ["import", "start", "log", "finish"])
@pytest.mark.parametrize("error", [RuntimeError("no server there.\nMore of it."), SystemExit("no server there")])
def test_one_that_fails_is_told_of_once_and_leaves_the_others_alone(tmp_path, call, error):
    fake_loggers.TROUBLE[call] = raising(error)
    recorder = logged(tmp_path, "bad", "good", lines=20)
    assert recorder.warned == [
        f"logging to bad failed and is off: {type(error).__name__}: no server there. The run goes on."
    ]
    assert len(fake_loggers.CALLS) == 22


def test_one_that_cannot_be_imported(tmp_path):
    (warning,) = logged(tmp_path, "gone").warned
    assert warning == (
        "logging to gone failed and is off: ModuleNotFoundError: No module named 'no_such_module'. The run goes on."
    )


@pytest.mark.parametrize("call", ["import", "start", "log", "finish"])
def test_one_that_does_not_answer_holds_nothing_up(tmp_path, monkeypatch, call):
    monkeypatch.setattr(background, "FINISH_SECONDS", 0.2)
    fake_loggers.TROUBLE[call] = fake_loggers.NEVER.wait
    began = time.monotonic()
    recorder = logged(tmp_path, "bad", "good")
    assert time.monotonic() - began < 2
    assert recorder.warned == [
        "logging to bad failed and is off: it did not answer before the end of the run. The run goes on."
    ]
    assert fake_loggers.CALLS[-1][0] == "finish"


def test_lines_for_one_that_does_not_answer_do_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setattr(background, "MOST_WAITING", 5)
    fake_loggers.TROUBLE["start"] = fake_loggers.NEVER.wait
    recorder = logged(tmp_path, "bad", lines=50)
    assert recorder.warned == [
        "logging to bad failed and is off: it does not answer; 5 lines wait for it. The run goes on."
    ]


def test_the_table_has_the_names_of_the_setting():
    assert tuple(LOGGERS) == LOGGER_NAMES


def test_a_logger_that_is_not_installed_is_told_of_before_anything_begins(tmp_path, monkeypatch):
    check_loggers(["tensorboard", "wandb", "mlflow", "none"])
    monkeypatch.setattr(choice, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"logger = 'mlflow' needs mlflow, sqlalchemy, alembic.*stopgrad\[mlflow\]"):
        check_request({"logger": ["tensorboard", "mlflow"]}, tmp_path / "run", resume=False, overwrite=False)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[wandb\]'"):
        check_request({"logger": "wandb"}, tmp_path / "run", resume=False, overwrite=False)
    check_request({"logger": ("tensorboard",)}, tmp_path / "run", resume=False, overwrite=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_named_like_the_package_is_no_installation(tmp_path, monkeypatch):
    (tmp_path / "wandb_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(choice, "LOGGERS", {"wandb": Kind("x:Y", ("wandb_folder",))})
    with pytest.raises(ConfigError, match="needs wandb_folder"):
        check_loggers(["wandb"])


def test_the_numbers_of_a_summary():
    summary = {"knn": {"trained": 0.5, "few": {"mean": 1}}, "steps": 3, "is": True, "words": "x", "none": None}
    assert numbers_of(summary) == {"knn/trained": 0.5, "knn/few/mean": 1.0, "steps": 3.0}
