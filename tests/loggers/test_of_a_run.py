"""What a training run tells its loggers, and when; and the setting that chooses them."""

import json

import fake_loggers
import pytest
from recorder import Recorder

import stopgrad
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config, from_toml, to_toml
from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError, Interrupted, NonFiniteLossError
from stopgrad.loggers import background
from stopgrad.loggers.choice import Kind
from stopgrad.report.groups import WITHOUT_INFLUENCE
from stopgrad.stop import StopRequest
from stopgrad.studies.cells import part_of_key
from stopgrad.train.loop import Training
from stopgrad.train.progress import Progress
from stopgrad.train.session import _logged


@pytest.fixture
def calls(monkeypatch):
    """What a logger in TensorBoard's place is told."""
    monkeypatch.setattr(background, "LOGGERS", {"tensorboard": Kind("fake_loggers:Good")})
    monkeypatch.setattr(fake_loggers, "CALLS", [])
    return fake_loggers.CALLS


def test_a_run_that_is_stopped_and_resumed(calls, tiny, tmp_path, monkeypatch):
    out, steps = tmp_path / "of-three", iter(range(1, 100))
    monkeypatch.setattr(StopRequest, "requested", lambda self: "a test" if next(steps) == 1 else None)
    tiny |= {"reporter": Recorder(), "baselines": False, "devices": 1, "steps": 3, "log_every_steps": 1}
    with pytest.raises(Interrupted):
        stopgrad.pretrain(out=out, **tiny)
    config = RunDir(out).read_config()
    told = {"recipe": "digits", **config.flat()}
    lines = RunDir(out).read_metrics()
    assert calls == [("start", "of-three", told, 0), ("log", 1, values(lines[0])), ("finish", "stopped", {})]

    calls.clear()
    steps = iter(range(100, 200))
    stopgrad.pretrain(out=out, resume=True, reporter=Recorder())
    lines = RunDir(out).read_metrics()
    summary = json.loads((out / "summary.json").read_text())
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert calls == [
        ("start", "of-three", told, 1),
        *(("log", line["step"], values(line)) for line in lines[1:]),
        ("finish", "finished", summary),
    ]


def values(line):
    return {name: value for name, value in line.items() if name != "step"}


def in_progress(tmp_path, *, index=0, step=2):
    training = Training.__new__(Training)
    training.config, training.run_dir = Config(), RunDir(tmp_path)
    training.rank, training.progress, training.total_steps = Rank(index, 2, index), Progress(step=step), 3
    return training


@pytest.mark.parametrize(
    ("error", "step", "state"),
    [
        (None, 3, "finished"),
        (Interrupted("by a test"), 2, "stopped"),
        # While the final figures are measured.
        (Interrupted("by a test"), 3, "finished"),
        (NonFiniteLossError("no number"), 2, "failed"),
        (RuntimeError("a bug"), 3, "failed"),
    ],
)
def test_how_a_run_ended(calls, tmp_path, error, step, state):
    (tmp_path / "summary.json").write_text('{"verdict": "learnt"}')

    def end():
        with _logged(in_progress(tmp_path, step=step), Recorder()):
            if error is not None:
                raise error

    if error is None:
        end()
    else:
        with pytest.raises(type(error)):
            end()
    assert calls[-1] == ("finish", state, {"verdict": "learnt"} if state == "finished" else {})


def test_only_the_first_process_logs(calls, tmp_path):
    with _logged(in_progress(tmp_path, index=1), Recorder()) as loggers:
        loggers.log({"step": 1, "loss": 0.5})
    assert calls == []
    with _logged(in_progress(tmp_path, index=0), Recorder()) as loggers:
        loggers.log({"step": 1, "loss": 0.5})
    assert [name for name, *_ in calls] == ["start", "log", "finish"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("wandb", ("wandb",)),
        (["wandb", "tensorboard"], ("wandb", "tensorboard")),
        (("none",), ("none",)),
    ],
)
def test_the_setting(given, taken, tmp_path):
    config = Config().replace(logger=given)
    assert config.monitoring.logger == taken
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert Config().replace(**from_toml(tmp_path / "c.toml")[1]) == config
    # A run logged elsewhere is the same run.
    assert part_of_key({"logger": taken}) == {}
    assert "logger" in WITHOUT_INFLUENCE


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wandbb", "logger = 'wandbb' is unknown: did you mean 'wandb'"),
        ((), "needs one or more names of tensorboard, wandb, mlflow, none"),
        (3, "needs one or more names"),
        ((3,), "needs one or more names"),
        (("wandb", "wandb"), "each once"),
        (("none", "wandb"), "'none' goes with no other"),
    ],
)
def test_a_setting_that_cannot_be(given, message):
    with pytest.raises(ConfigError, match=message):
        Config().replace(logger=given)


def test_a_resumed_run_may_be_logged_elsewhere():
    from stopgrad.artifacts.resume import check_same_config

    check_same_config(Config(), Config().replace(logger="none"), "here")
