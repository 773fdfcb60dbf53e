"""Looking at a stranger's run imports nothing that its config names."""

import shutil
import sys

import pytest
from photos import write_photos, write_run

import stopgrad
from stopgrad.artifacts.checkpoint import save_checkpoint
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.encoder.load import load_encoder
from stopgrad.report.compare import compare

NAME = "stranger_of_a_config"


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """A run whose guide and method are a module that can be imported; it is not, by the end."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{NAME}.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path / "code")
    write_photos(tmp_path / "data", num=24)
    run = RunDir(write_run(tmp_path / "run", tmp_path / "data"))
    run.write_config(run.read_config().replace(guide=f"{NAME}:guide", method="byol"))
    yield run
    assert NAME not in sys.modules


@pytest.mark.slow
def test_what_looks_at_a_run(strange, tmp_path):
    for setting in ("guide", "method"):
        strange.write_config(strange.read_config().replace(**{setting: f"{NAME}:thing"}))
        stopgrad.write_report(strange.path, points=10)
        stopgrad.embed_to_file(strange.path, out=tmp_path / f"{setting}.npy")
        stopgrad.export(strange.path, to="hub-folder", out=tmp_path / setting)
        other = shutil.copytree(strange.path, tmp_path / f"{setting} copied")
        compare([strange.path, other], out=tmp_path / f"{setting}.html")


def test_an_unfinished_run(strange):
    encoder = load_encoder(strange.path)
    weights = {f"encoder.0.{name}": value for name, value in encoder.backbone.state_dict().items()}
    config = {"backbone": "resnet10_16", "image_size": 12, "guide": f"{NAME}:guide"}
    state = {"config": config, "method": weights, "progress": {"step": 3}}
    save_checkpoint(strange.checkpoint_dir / "step-00000003.ckpt", state)
    strange.encoder_file.unlink()
    assert "unfinished" in load_encoder(strange.path).name
