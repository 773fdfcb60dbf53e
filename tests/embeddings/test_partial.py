"""Weights that fit in part: refused with what does not fit, or taken with what was left at its random start."""

import pytest
import timm
import torch
from torch import nn

from stopgrad import load_encoder
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.encoder.load import save_encoder, spec_of
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.nets.backbones import build_backbone
from stopgrad.weights.fit import fit_of, gathered, prefixes_of


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return build_backbone("resnet10_16").state_dict()


def saved(content, path):
    torch.save(content, path)
    return path


def test_what_does_not_fit_is_named(weights, tmp_path):
    del weights["layer3.0.bn2.weight"]
    weights |= {"layer1.0.more.weight": torch.zeros(2), "bn1.weight": torch.zeros(3), "fc.weight": torch.zeros(9, 128)}
    file = saved(weights, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as raised:
        load_encoder(file, backbone="resnet10_16")
    for words in (
        "it lacks layer3.0.bn2.weight;", "it has layer1.0.more.weight besides;", "bn1.weight is [3], not [16]",
        "--partial", "partial=True",
    ):  # fmt: skip
        assert words in str(raised.value)
    assert "fc" not in str(raised.value)
    encoder = load_encoder(f"{file}?backbone=resnet10_16&partial=true")
    own = encoder.backbone.state_dict()
    assert torch.equal(own["conv1.weight"].contiguous(), weights["conv1.weight"])
    assert torch.equal(own["bn1.weight"], torch.ones(16))
    assert "without layer1, fc" in encoder.name
    assert "in part, 2 of 60 tensors left at their random start: bn1.weight, layer3.0.bn2.weight" in encoder.name
    assert "no place for layer1.0.more.weight" in encoder.name


def test_the_random_start_is_of_a_fixed_seed_and_draws_nothing(weights, tmp_path):
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("layer4.")}
    file = saved(weights, tmp_path / "a.pth")
    state = torch.get_rng_state()
    first, second = (load_encoder(file, backbone="resnet10_16", partial=True) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.backbone.layer4[0].conv1.weight, second.backbone.layer4[0].conv1.weight)
    assert first.backbone.layer4[0].conv1.weight.std() > 0
    assert first.name.endswith("tensors left at their random start: layer4.*; 224 px)")


def test_whole_weights_are_whole_with_partial_too(weights, tmp_path):
    file = saved(weights, tmp_path / "a.pth")
    assert load_encoder(file, partial=True).name == load_encoder(file).name


def test_a_stem_that_the_weights_do_not_have(weights, tmp_path):
    file = saved(weights, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"conv1\.weight is \[16, 3, 7, 7\], not \[16, 3, 3, 3\]"):
        load_encoder(file, stem="small")
    encoder = load_encoder(file, stem="small", partial=True)
    assert (encoder.spec.stem, encoder.spec.image_size) == ("small", 32)
    assert "with small stem; in part, 1 of 60 tensors left at their random start: conv1.weight" in encoder.name


def test_nothing_that_fits_is_nothing_in_part(tmp_path):
    file = saved({"a.weight": torch.zeros(3), "conv1.weight": torch.zeros(3)}, tmp_path / "a.pth")
    for backbone in ("resnet10_16", "test_vit"):
        with pytest.raises(CheckpointError, match=f"holds no {backbone}"):
            load_encoder(file, backbone=backbone, partial=True)
    shapes = {name: torch.zeros(5, 5) for name in build_backbone("resnet10_16").state_dict()}
    with pytest.raises(CheckpointError, match="holds nothing that fits backbone 'resnet10_16'"):
        load_encoder(saved(shapes, tmp_path / "b.pth"), backbone="resnet10_16", partial=True)


def test_a_shallower_network_in_a_deeper_one(tmp_path):
    file = saved(nn.ModuleDict({"backbone": build_backbone("resnet18")}).state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds a resnet18, not a resnet34"):
        load_encoder(file, backbone="resnet34")
    encoder = load_encoder(file, backbone="resnet34", partial=True)
    assert "resnet34 from backbone.*; in part, 80 of 180" in encoder.name
    for part in ("layer1.2.*", "layer2.2.*", "layer3.5.*"):
        assert part in encoder.name


def test_heads_that_timm_keeps_beside_the_trunk_are_left_out(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_convnext").eval()
    encoder = load_encoder(saved(network.state_dict(), tmp_path / "a.pth"), backbone="test_convnext")
    network.reset_classifier(0)
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.backbone(images), network(images))
    assert "without head" in encoder.name


@pytest.fixture
def run(tmp_path):
    folder = RunDir(tmp_path / "run")
    folder.create()
    config = Config().replace(backbone="resnet10_16", stem="small", image_size=16)
    save_encoder(folder, build_backbone("resnet10_16", stem="small"), spec_of(config, 128))
    return folder.path


def test_of_a_run_the_same_network_may_be_named_and_another_only_in_part(run):
    plain = load_encoder(run)
    assert load_encoder(run, backbone="resnet10_16", stem="small").spec == plain.spec
    with pytest.raises(ConfigError, match=r"stem cannot be chosen here.*resnet10_16 with small stem.*--partial"):
        load_encoder(run, stem="standard")
    with pytest.raises(ConfigError, match="backbone cannot be chosen here"):
        load_encoder(run, backbone="resnet18")
    other = load_encoder(run, stem="standard", partial=True)
    assert (other.spec.stem, other.spec.image_size) == ("standard", 16)
    assert torch.equal(other.backbone.layer1[0].conv1.weight, plain.backbone.layer1[0].conv1.weight)
    assert "(resnet10_16; in part, 1 of 60 tensors left at their random start: conv1.weight)" in other.name


def test_timm_with_another_stem():
    with pytest.raises(ConfigError, match="stem cannot be chosen here"):
        load_encoder("timm:resnet18?pretrained=false&stem=small")
    encoder = load_encoder("timm:resnet18?pretrained=false&stem=small&partial=true&image_size=32")
    assert encoder.backbone.conv1.weight.shape[-1] == 3
    assert encoder.preprocess.size == 32
    # What load_encoder loads again from its own words.
    assert load_encoder(encoder.source).name == encoder.name


@pytest.mark.parametrize("value", ["yes", "1", ""])
def test_partial_is_true_or_false(run, value):
    with pytest.raises(ConfigError, match=r"partial = .*true or false"):
        load_encoder(f"{run}?partial={value}")


def test_a_position_embedding_for_another_size(tmp_path):
    file = saved(timm.create_model("test_vit", img_size=96).state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"pos_embed is \[1, 37, 64\], not \[1, 101, 64\].*another --image-size"):
        load_encoder(file, backbone="test_vit")
    assert load_encoder(file, backbone="test_vit", image_size=96).preprocess.size == 96


def test_names_gathered():
    own = ["conv.weight", "a.0.x", "a.0.y", "a.1.x", "a.1.y", "b.z"]
    assert gathered(["a.0.x", "a.0.y", "a.1.x"], own) == ["a.0.*", "a.1.x"]
    assert gathered(["a.0.x", "a.0.y", "a.1.x", "a.1.y", "b.z"], own) == ["a.*", "b.z"]
    assert gathered([], own) == []


def test_prefixes():
    own = ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight"]
    names = [f"{prefix}{name}" for prefix in ("s.m.", "t.") for name in own] + ["head.weight"]
    assert prefixes_of(names, own) == ["s.m.", "t."]
    assert prefixes_of(own, own) == [""]
    assert prefixes_of(["x"], own) == []


def test_counts_of_batches_may_be_missing():
    fit = fit_of({"bn.weight": (3,), "bn.num_batches_tracked": ()}, {"bn.weight": (3,)}, "resnet18")
    assert fit.whole
    assert fit.part_words == ""
