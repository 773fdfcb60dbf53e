"""Files that are no encoder are refused in words, and nothing in them is ever unpickled."""

import json
import pickle
from dataclasses import replace

import pytest
import torch

from stopgrad import load_encoder
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.encoder.load import save_encoder, spec_of
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.nets.backbones import build_backbone
from stopgrad.weights.options import LoadOptions, split_query, with_query

CONFIG = Config().replace(backbone="resnet10_16", image_size=16)


@pytest.fixture
def folder(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    save_encoder(run, build_backbone("resnet10_16"), spec_of(CONFIG, 128))
    return run.path


def test_there_and_back(folder):
    from_folder, from_file = load_encoder(folder), load_encoder(folder / "encoder.safetensors")
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(from_folder.backbone(images), from_file.backbone(images))
    assert not from_folder.backbone.training


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


@pytest.mark.parametrize("name", ["weights.pt", "step-00000001.ckpt", "encoder.safetensors"])
def test_pickles_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(CheckpointError):
        load_encoder(tmp_path / name)


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("[]", "cannot be loaded"),
        ("{", "cannot be loaded"),
        ('{"format": "other"}', "is not of format"),
        ({"backbone": "resnet10_32"}, "does not fit"),
        ({"backbone": "hf_hub:somebody/something"}, "does not fit"),
        ({"mean": 3}, "cannot be loaded"),
        ({"more": 3}, "cannot be loaded"),
    ],
)
def test_a_spec_that_is_none(folder, spec, message):
    file = folder / "encoder.json"
    text = spec if isinstance(spec, str) else json.dumps({**json.loads(file.read_text()), **spec})
    file.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(folder)


def test_weights_that_are_cut_off(folder):
    file = folder / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_encoder(folder)


def test_another_size_and_normalisation(folder):
    usual, other = load_encoder(folder), load_encoder(folder, image_size=96, mean=(0.5,) * 3)
    assert (other.preprocess.size, other.preprocess.resize, other.preprocess.mean) == (96, 110, (0.5,) * 3)
    assert other.preprocess.std == usual.preprocess.std
    assert load_encoder(f"{folder}?image_size=96").preprocess == replace(other.preprocess, mean=usual.preprocess.mean)
    with pytest.raises(ConfigError, match="backbone cannot be chosen here"):
        load_encoder(folder, backbone="resnet18")


def test_weights_without_their_spec(folder):
    (folder / "encoder.json").unlink()
    with pytest.raises(CheckpointError, match=r"encoder\.json"):
        load_encoder(folder / "encoder.safetensors")


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(),
        LoadOptions(image_size=96, mean=(0.1, 1 / 3, 0.5), std=(0.2, 1e-5, 1.0)),
        LoadOptions(backbone="resnet50.tv_in1k", stem="small", prefix="a&b=c é.", pretrained=False),
        LoadOptions(prefix=""),
    ],
)
def test_what_is_asked_is_written_behind_the_question_mark_and_read_again(options):
    assert split_query(with_query("/a b/x&y.pth", options)) == ("/a b/x&y.pth", options)
