"""What lies beside weights, or in their file, says which network they are of and how images come to it."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models._hub import save_for_hf

from stopgrad import export, load_encoder
from stopgrad.errors import CheckpointError
from stopgrad.nets.backbones import build_backbone

GRAY = {"mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3), "crop_pct": 0.8}


@pytest.fixture
def hub_folder(tmp_path):
    """A network as timm writes it for a hub."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", pretrained_cfg_overlay=GRAY)
    save_for_hf(network, tmp_path / "hub", safe_serialization=True)
    return tmp_path / "hub"


def weights(name, **given):
    torch.manual_seed(0)
    return timm.create_model(name, **given).state_dict()


@pytest.mark.parametrize("place", ["", "model.safetensors"])
def test_a_folder_of_a_hub(hub_folder, place):
    encoder = load_encoder(hub_folder / place)
    own = weights("test_vit")
    assert all(torch.equal(tensor, own[name]) for name, tensor in encoder.backbone.state_dict().items())
    p = encoder.preprocess
    assert (p.size, p.resize, p.mean, p.std) == (160, 200, GRAY["mean"], GRAY["std"])
    assert "test_vit, as config.json says, without" in encoder.name
    assert load_encoder(f"{hub_folder / place}?mean=0.5").preprocess == replace(p, mean=(0.5,) * 3)
    # Who names the network is taken at the word.
    assert load_encoder(hub_folder / place, backbone="test_vit").preprocess.mean == (0.5, 0.5, 0.5)


def test_a_folder_of_ours_without_its_spec_is_as_timm_would_take_it(tmp_path):
    encoder = load_encoder("timm:test_vit?pretrained=false")
    export(encoder, to="hub-folder", out=tmp_path / "out")
    (tmp_path / "out" / "stopgrad.json").unlink()
    assert load_encoder(tmp_path / "out").spec == encoder.spec


def test_a_config_of_the_files_own_name(tmp_path):
    save_file(weights("test_vit"), tmp_path / "a.safetensors")
    (tmp_path / "a.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": GRAY}))
    assert load_encoder(tmp_path / "a.safetensors").preprocess.mean == GRAY["mean"]


def test_a_config_of_something_else(hub_folder, tmp_path):
    config = json.loads((hub_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "resnet18", "model_args": {}}))
    save_file(weights("test_vit"), tmp_path / "a.safetensors")
    assert load_encoder(tmp_path / "a.safetensors").preprocess.mean == (0.5, 0.5, 0.5)
    (tmp_path / "config.json").replace(hub_folder / "config.json")
    with pytest.raises(CheckpointError, match="hub holds no resnet18"):
        load_encoder(hub_folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"architectures": ["ViTModel"], "model_type": "vit"}'])
def test_configs_that_name_no_network(hub_folder, text):
    (hub_folder / "config.json").write_text(text)
    assert "the one network of timm with these shapes" in load_encoder(hub_folder).name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_args": {"global_pool": "avg"}}, r"built with global_pool='avg'.*--backbone test_vit"),
        ({"model_args": {"no_embed_class": True}}, r"built with no_embed_class=True"),
        ({"model_args": {"nonsense": 3}}, r"built with nonsense=3"),
        ({"pretrained_cfg": {"mean": [0.5], "std": [0.5], "input_size": [1, 160, 160]}}, "1 channels"),
        ({"pretrained_cfg": {"mean": "gray", "std": 3}}, "cannot be used"),
    ],
)
def test_configs_that_cannot_be_followed(hub_folder, change, message):
    config = json.loads((hub_folder / "config.json").read_text())
    (hub_folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_encoder(hub_folder)
    assert load_encoder(hub_folder, backbone="test_vit").spec.backbone == "test_vit"


LITE0 = "tf_efficientnet_lite0"


@pytest.mark.parametrize("hint", ["arch", "architecture"])
@pytest.mark.slow
def test_what_the_file_says_decides_between_networks_that_fit(tmp_path, hint):
    save_file(weights(LITE0), tmp_path / "a.safetensors", metadata={hint: LITE0})
    torch.save({hint: f"{LITE0}.in1k", "state_dict": weights(LITE0)}, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        encoder = load_encoder(tmp_path / name)
        assert encoder.spec.mean == (0.5, 0.5, 0.5)
        assert f"{LITE0}" in encoder.name
        assert ", as the file says, without" in encoder.name
    # Neither does a wrong word count, nor one that is no network of timm.
    for wrong in ("resnet50", "vit_small"):
        save_file(weights(LITE0), tmp_path / "b.safetensors", metadata={hint: wrong})
        with pytest.raises(
            CheckpointError, match=r"fits several networks.*--backbone NAME.*efficientnet_lite0 \(mean 0\.485.*"
            r"tf_efficientnet_lite0 \(mean 0\.5, std 0\.5\)"
        ):  # fmt: skip
            load_encoder(tmp_path / "b.safetensors")


def test_timms_own_size_and_normalisation_of_the_network_that_is_named(tmp_path):
    save_file(weights(LITE0), tmp_path / "a.safetensors")
    encoder = load_encoder(tmp_path / "a.safetensors", backbone=LITE0)
    assert encoder.spec == load_encoder(f"timm:{LITE0}?pretrained=false").spec
    assert encoder.name.endswith(f"({LITE0}, without classifier; 224 px, mean 0.5, std 0.5)")
    assert load_encoder(tmp_path / "a.safetensors", backbone="efficientnet_lite0").spec.mean == (0.485, 0.456, 0.406)
    smaller = load_encoder(tmp_path / "a.safetensors", backbone=LITE0, image_size=96, std=(0.2,) * 3)
    assert (smaller.preprocess.size, smaller.preprocess.resize, smaller.preprocess.std) == (96, 110, (0.2,) * 3)


@pytest.mark.slow
def test_one_architecture_whose_weights_are_normalised_in_several_ways(tmp_path):
    save_file(weights("resnet18d"), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"resnet18d\.ra2_in1k \(mean 0\.485.*resnet18d\.ra4.*\(mean 0\.5"):
        load_encoder(tmp_path / "a.safetensors")
    said = load_encoder(tmp_path / "a.safetensors", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert said.spec.backbone == "resnet18d"
    tagged = load_encoder(tmp_path / "a.safetensors", backbone="resnet18d.ra2_in1k")
    assert tagged.spec.mean == (0.485, 0.456, 0.406)


def test_resnets_of_other_programs_keep_the_usual_preprocessing(tmp_path):
    torch.save(build_backbone("resnet18").state_dict(), tmp_path / "a.pth")
    plain, named = load_encoder(tmp_path / "a.pth"), load_encoder(tmp_path / "a.pth", backbone="resnet18")
    assert plain.preprocess == named.preprocess
    assert (plain.preprocess.size, plain.preprocess.resize) == (224, 256)
    assert load_encoder(tmp_path / "a.pth", backbone="resnet18.a1_in1k").preprocess.resize == 235
