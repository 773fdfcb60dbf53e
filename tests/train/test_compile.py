import json
import shutil

import pytest
import torch
from recorder import Recorder

import stopgrad
from stopgrad import hardware
from stopgrad.train import session


def last_loss(run):
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["loss"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_learns_the_same(tmp_path, tiny):
    arguments = {**tiny, "steps": 2, "precision": "fp32", "source_first": True, "method": "byol"}
    plain = stopgrad.pretrain(out=tmp_path / "plain", **arguments)
    recorder = Recorder()
    compiled = stopgrad.pretrain(out=tmp_path / "compiled", compile=True, reporter=recorder, **arguments)
    assert not any("compile" in text for text in recorder.warned)
    assert last_loss(compiled) == pytest.approx(last_loss(plain), abs=1e-3)
    assert set(compiled.encoder.backbone.state_dict()) == set(plain.encoder.backbone.state_dict())


@pytest.mark.slow
def test_without_a_way_to_compile_the_run_goes_on(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(session, "compile_problem", lambda device: "no C++ compiler found")
    recorder = Recorder()
    stopgrad.pretrain(out=tmp_path / "run", compile=True, reporter=recorder, **{**tiny, "steps": 2})
    assert any("compile has no effect" in text and "no C++ compiler" in text for text in recorder.warned)


def test_the_problem_is_a_line(monkeypatch):
    def fail(function):
        raise RuntimeError("no compiler\nlong trace")

    monkeypatch.setattr(torch, "compile", fail)
    assert hardware.compile_problem(torch.device("cpu")) == "no compiler"
