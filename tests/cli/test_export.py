"""stopgrad export from the command line."""

import json
from pathlib import Path

import pytest
import torch

from stopgrad import export, load_encoder
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cli.main import run
from stopgrad.config import Config
from stopgrad.encoder.load import save_encoder, spec_of
from stopgrad.exports.paths import default_place
from stopgrad.nets.backbones import build_backbone


@pytest.fixture
def folder(tmp_path):
    made = RunDir(tmp_path / "run")
    made.create()
    torch.manual_seed(0)
    config = Config().replace(backbone="resnet10_16", stem="small", image_size=12)
    save_encoder(made, build_backbone("resnet10_16", stem="small"), spec_of(config, 128))
    return made.path


def test_it_prints_how_to_load_it(folder, tmp_path, capsys):
    out = tmp_path / "weights.safetensors"
    assert run(["export", str(folder), "--to", "timm", "--out", str(out)]) == 0
    output = capsys.readouterr().out
    for words in (
        f"Exported  {folder}",
        "loaded again; features differ by at most",
        "shorter side to 12 pixels",
        "timm has no name",
    ):
        assert words in output
    names = {}
    exec(output[output.index("import timm") :], names)
    images = torch.randn(2, 3, 12, 12)
    with torch.inference_mode():
        torch.testing.assert_close(names["model"](images), load_encoder(folder).backbone(images), atol=1e-5, rtol=1e-4)


def test_json_is_one_object(folder, tmp_path, capsys):
    out = tmp_path / "hub"
    assert run(["export", str(folder), "--to", "hub-folder", "--out", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert (found["to"], found["path"]) == ("hub-folder", str(out))
    assert set(found["files"]) == {p.name for p in out.iterdir()}
    assert found["max_difference"] < 1e-5


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("timm", "encoder-timm.safetensors"),
        ("safetensors", "encoder-stopgrad.safetensors"),
        ("hub-folder", "encoder-hub"),
    ],
)
def test_without_out_it_goes_beside_the_encoder_and_overwrites_nothing(folder, capsys, to, name):
    own = (folder / "encoder.safetensors").read_bytes()
    assert run(["export", str(folder), "--to", to]) == 0
    assert str(folder / name) in capsys.readouterr().out
    assert (folder / name).exists()
    assert run(["export", str(folder), "--to", to]) == 2
    assert "exists" in capsys.readouterr().err
    assert (folder / "encoder.safetensors").read_bytes() == own


def test_without_out_a_file_or_a_name_gives_the_name(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = folder / "encoder.safetensors"
    assert default_place("onnx", f"{file}?image_size=12") == folder / "encoder.onnx"
    assert default_place("onnx", "timm:resnet18") == Path("resnet18.onnx")
    assert default_place("onnx", "timm:hf_hub:some/net") == Path("net.onnx")
    assert default_place("onnx", None) == Path("encoder.onnx")
    done = export(load_encoder(folder), to="timm")
    assert done.path.resolve() == (folder / "encoder-timm.safetensors").resolve()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--to", "tim", "--out", "a.safetensors"], 2, "did you mean 'timm'"),
        (["--to", "timm", "--out", "a.pth"], 2, "is a .safetensors file"),
        (["--to", "timm", "--out", "a.safetensors", "--with-preprocess"], 2, "onnx only"),
        (["--to", "torchvision", "--out", "a.pth"], 2, "no counterpart of 'resnet10_16'"),
    ],
)
def test_wrong_usage(folder, tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    assert run(["export", str(folder), *arguments]) == code
    assert message in capsys.readouterr().err


def test_nothing_there_fails(tmp_path, capsys):
    assert run(["export", str(tmp_path / "none"), "--to", "timm", "--out", str(tmp_path / "a.safetensors")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_taken_place_is_refused_without_overwrite(folder, tmp_path, capsys):
    out = tmp_path / "a.safetensors"
    out.write_text("mine")
    assert run(["export", str(folder), "--to", "timm", "--out", str(out)]) == 2
    assert out.read_text() == "mine"
    assert run(["export", str(folder), "--to", "timm", "--out", str(out), "--overwrite"]) == 0
