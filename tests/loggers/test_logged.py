"""A run that is stopped and resumed, in event files, a wandb run offline and MLflow's database in the run folder."""

import json
import shutil

import pytest
from mlflow import MlflowClient
from recorder import Recorder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import SETTINGS, Config
from stopgrad.loggers import background
from stopgrad.loggers.background import Loggers

CONFIG = {"recipe": "", **Config().flat()}
SUMMARY = {
    "verdict": "learnt", "verdict_words": "Learnt: k-NN 96.7%.", "steps": 6, "final": {"knn_top1": 0.967}, "knn": None,
    "kept": None, "skipped": [],
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _no_server():
    """Whatever the machine that tests has set up, nothing leaves it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_DIR"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture(scope="module")
def logged(tmp_path_factory, _no_server):
    """A run in two sittings of three steps, and what was said; MLflow's state between the two."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "logged")
    run.make()
    recorder = sit(run, "tensorboard", "wandb", "mlflow", steps=(1, 2, 3), state="stopped")
    stopped = mlflow_run(run).info.status
    again = sit(run, "tensorboard", "wandb", "mlflow", steps=(4, 5, 6), state="finished", summary=SUMMARY)
    assert recorder.warned == again.warned == []
    return run, recorder.said + again.said, stopped


def sit(run, *names, steps, state, summary=None):
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        # A busy machine may take its time.
        patch.setattr(background, "FINISH_SECONDS", 300.0)
        loggers = Loggers(names, run, CONFIG, steps[0] - 1, recorder)
        for step in steps:
            loggers.log({"step": step, "loss": step / 4, "share (%) of x": 1.0})
        loggers.finish(state, summary or {})
    return recorder


def mlflow_client(run):
    return MlflowClient(tracking_uri=f"sqlite:///{run.path / 'mlflow' / 'mlflow.db'}")


def mlflow_run(run):
    client = mlflow_client(run)
    return client.get_run(run.mlflow_id_file.read_text().strip())


def wandb_records(file):
    """The records of a .wandb file: LevelDB's log, blocks of 32 KiB with checked chunks, after a header of 7 bytes."""
    data, at, record, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(wandb_internal_pb2.Record.FromString(record))
            record = b""
        if (left := 32768 - at % 32768) < 7:
            at += left
    return found


def test_the_user_is_told_where(logged):
    run, said, _ = logged
    assert sum(f"wandb: offline; to upload: wandb sync {run.path}/wandb/offline-run-" in text for text in said) == 2
    assert said.count(f"Logging   mlflow: sqlite:///{run.path}/mlflow/mlflow.db") == 2
    assert len(said) == 4


def test_tensorboard(logged):
    events = EventAccumulator(str(logged[0].tensorboard_dir))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(step, step / 4) for step in range(1, 7)]
    assert [(e.step, e.value) for e in events.Scalars("summary/final/knn_top1")] == [(6, pytest.approx(0.967))]
    tags = events.Tags()["tensors"]
    texts = {tag: [e.tensor_proto.string_val[0].decode() for e in events.Tensors(tag)] for tag in tags}
    assert texts["verdict/text_summary"] == ["Learnt: k-NN 96.7%."]
    assert texts["state/text_summary"] == ["stopped", "finished"]
    assert "    batch_size = 256" in texts["config/text_summary"][0].splitlines()


def test_mlflow(logged):
    run, _, stopped = logged
    found = mlflow_run(run)
    assert (found.info.run_name, stopped, found.info.status) == ("logged", "KILLED", "FINISHED")
    assert set(found.data.params) == {"recipe", *SETTINGS}
    assert found.data.params["batch_size"] == "256"
    assert found.data.metrics["summary/final/knn_top1"] == 0.967
    assert found.data.metrics["share ___ of x"] == 1.0
    assert {name: found.data.tags[name] for name in ("verdict", "verdict_words")} == {
        "verdict": "learnt",
        "verdict_words": "Learnt: k-NN 96.7%.",
    }
    history = mlflow_client(run).get_metric_history(found.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(step, step / 4) for step in range(1, 7)]


def test_mlflow_begins_another_run_where_the_store_has_none_of_that_id(logged, tmp_path):
    run = RunDir(tmp_path / "copied")
    shutil.copytree(logged[0].path / "mlflow", run.path / "mlflow")
    first = mlflow_run(run).info.run_id
    run.mlflow_id_file.write_text("0" * 32)
    assert sit(run, "mlflow", steps=(7,), state="failed").warned == []
    begun = mlflow_run(run)
    assert begun.info.run_id not in (first, "0" * 32)
    assert (begun.info.run_name, begun.info.status) == ("copied", "FAILED")


def test_a_place_that_mlflow_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "carrier-pigeon://x")
    run = RunDir(tmp_path / "run")
    run.make()
    (warning,) = sit(run, "mlflow", steps=(1,), state="finished").warned
    assert warning.startswith("logging to mlflow failed and is off")


def test_wandb(logged):
    run = logged[0]
    kept = run.wandb_id_file.read_text().strip()
    files = sorted(run.path.glob(f"wandb/offline-run-*/run-{kept}.wandb"), key=lambda file: file.stat().st_mtime_ns)
    assert len(files) == 2 == len(list(run.path.glob("wandb/offline-run-*")))
    first, second = (wandb_records(file) for file in files)
    for records in (first, second):
        begun = {(r.run.run_id, r.run.display_name, r.run.project) for r in records if r.HasField("run")}
        assert begun == {(kept, "logged", "stopgrad")}
    config = {u.key: json.loads(u.value_json) for r in first if r.HasField("run") for u in r.run.config.update}
    assert config["batch_size"] == 256
    rows = [items(r.history.item) for r in first + second if r.HasField("history")]
    assert [(row["_step"], row["loss"]) for row in rows] == [(step, step / 4) for step in range(1, 7)]
    assert [r.exit.exit_code for r in first + second if r.HasField("exit")] == [3, 0]
    summary = {}
    for record in second:
        if record.HasField("summary"):
            summary |= items(record.summary.update)
    assert summary["summary/final/knn_top1"] == 0.967
    assert (summary["verdict_words"], summary["state"]) == ("Learnt: k-NN 96.7%.", "finished")


def items(found):
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in found}


def test_wandb_without_a_folder(tmp_path):
    run = RunDir(tmp_path / "run")
    run.make()
    (run.path / "wandb").write_text("a file")
    (warning,) = sit(run, "wandb", steps=(1,), state="finished").warned
    assert warning.startswith("logging to wandb failed and is off: FileExistsError")


def test_starting_over_begins_other_logged_runs(logged, tmp_path):
    run = RunDir(tmp_path / "copied")
    shutil.copytree(logged[0].path, run.path)
    run.write_config(Config())
    run.create(overwrite=True)
    assert not run.mlflow_id_file.exists()
    assert not run.wandb_id_file.exists()
