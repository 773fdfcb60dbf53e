"""Other programs' checkpoints: recognised by names and shapes, their features those of the network that was saved."""

import argparse
import copy
import functools
import pickle

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from stopgrad import load_encoder
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.nets.backbones import build_backbone
from stopgrad.weights import timm_weights
from stopgrad.weights.foreign import RESNETS


def lively(network):
    """BatchNorm statistics and weights unlike those at the beginning, so that a tensor in the wrong place shows."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.0)
    return network.eval()


def features(network, size=64):
    torch.manual_seed(1)
    with torch.inference_mode():
        return network(torch.randn(2, 3, size, size)).flatten(1)


@functools.cache
def _resnet18():
    torch.manual_seed(0)
    network = lively(torchvision.models.resnet18(weights=None))
    network.fc = nn.Identity()
    return network


def resnet():
    """torchvision's ResNet-18."""
    return copy.deepcopy(_resnet18())


def narrow(seed=0):
    """Small enough to be quick; the names are the same."""
    torch.manual_seed(seed)
    return lively(build_backbone("resnet10_16"))


def named(prefix, network):
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


def with_projector(network):
    """As SimSiam and the authors' code: the projector is the ResNet's fc."""
    network.fc = nn.Sequential(nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 64))
    return network


def simsiam(network):
    full = named("module.encoder.", with_projector(network)) | named("module.predictor.", nn.Linear(64, 64))
    return {"epoch": 3, "arch": "resnet18", "state_dict": full, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}


def byol_gsg(network):
    other = narrow(1)
    return simsiam(network) | {"state_dict": simsiam(network)["state_dict"] | named("module.encoder_momentum.", other)}


def moco(network):
    other = narrow(1)
    queue = {"module.queue": torch.randn(8, 8), "module.queue_ptr": torch.zeros(1)}
    network.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    return {"state_dict": named("module.encoder_q.", network) | named("module.encoder_k.", other) | queue}


def moco_v3(network):
    other = narrow(1)
    return {"state_dict": named("module.momentum_encoder.", other) | named("module.base_encoder.", network)}


def dino(network):
    student = named("module.backbone.", narrow(1))
    teacher = named("backbone.", network) | named("head.mlp.0.", nn.Linear(512, 8))
    return {"student": student, "teacher": teacher, "args": argparse.Namespace(arch="resnet18"), "epoch": 1}


def lightly_sequential(network):
    body = nn.Sequential(*list(network.children())[:-1])
    heads = named("projection_head.layers.0.", nn.Linear(512, 8))
    return {"state_dict": named("backbone.", body) | heads, "pytorch-lightning_version": "2.6.6", "epoch": 0,
            "hyper_parameters": {"lr": 0.1}, "callbacks": {"x": {"best": torch.tensor(1.0)}}}  # fmt: skip


def plain(network):
    network.fc = nn.Linear(512, 1000)
    return network.state_dict()


LAYOUTS = {
    "simsiam": (simsiam, "state_dict.module.encoder.", "state_dict.module.predictor"),
    "byol_gsg": (byol_gsg, "state_dict.module.encoder.", "state_dict.module.encoder_momentum"),
    "moco": (moco, "state_dict.module.encoder_q.", "state_dict.module.queue"),
    "moco_v3": (moco_v3, "state_dict.module.base_encoder.", "state_dict.module.momentum_encoder"),
    "dino": (dino, "teacher.backbone.", "teacher.head"),
    "lightly": (lightly_sequential, "state_dict.backbone.", "state_dict.projection_head"),
    "torchvision": (plain, "", "fc"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_the_sources(tmp_path, layout):
    build, prefix, left_out = LAYOUTS[layout]
    network = resnet()
    expected = features(network)
    file = tmp_path / ("last.ckpt" if layout == "lightly" else "weights.pth")
    torch.save(build(network), file)
    encoder = load_encoder(file)
    assert torch.equal(features(encoder.backbone), expected) or torch.allclose(
        features(encoder.backbone), expected, atol=1e-5
    )
    assert encoder.spec.backbone == "resnet18"
    assert (encoder.spec.stem, encoder.spec.image_size, encoder.preprocess.resize) == ("standard", 224, 256)
    assert f"resnet18 from {prefix}*" in encoder.name if prefix else "(resnet18, without fc" in encoder.name
    assert left_out in encoder.name


def test_lightlys_own_resnet_for_cifar_has_no_relu_behind_its_stem(tmp_path):
    models = pytest.importorskip("lightly.models")
    network = lively(models.ResNetGenerator("resnet-18"))
    body = nn.Sequential(*list(network.children())[:-1], nn.AdaptiveAvgPool2d(1))
    torch.save({"state_dict": named("backbone.", body)}, tmp_path / "cifar.ckpt")
    encoder = load_encoder(tmp_path / "cifar.ckpt")
    torch.testing.assert_close(features(encoder.backbone, 32), features(body, 32))
    assert (encoder.spec.stem, encoder.spec.image_size) == ("small_linear", 32)
    assert encoder.spec.mean == (0.4914, 0.4822, 0.4465)
    # The untrained twin of an evaluation is the same network.
    twin = build_backbone(encoder.spec.backbone, stem=encoder.spec.stem, image_size=32)
    assert isinstance(twin.act1, nn.Identity)


@pytest.mark.parametrize("sequential", [True, False])
def test_a_small_stem_is_told_from_its_shape(tmp_path, sequential):
    network = resnet()
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    expected = features(network, 32)
    body = nn.Sequential(*list(network.children())[:-1]) if sequential else network
    torch.save(named("backbone.", body), tmp_path / "a.pt")
    encoder = load_encoder(tmp_path / "a.pt")
    torch.testing.assert_close(features(encoder.backbone, 32), expected)
    assert (encoder.spec.stem, encoder.preprocess.size, encoder.preprocess.resize) == ("small", 32, 32)


@pytest.mark.parametrize("name", [name for name in RESNETS.values() if name not in ("resnet18",)])
def test_each_resnet_by_its_shapes(name, tmp_path, monkeypatch):
    """Shapes only: on the meta device, large ones cost nothing."""
    from stopgrad.weights.foreign import _resnets

    with torch.device("meta"):
        tensors = build_backbone(name).state_dict()
    assert _resnets({f"a.b.{n}": t for n, t in tensors.items()})["a.b."].backbone == name


def test_vits_by_name(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("test_vit", num_classes=0).eval()
    file = tmp_path / "dino_vit.pth"
    torch.save({"teacher": named("backbone.", source), "student": named("module.backbone.", source)}, file)
    encoder = load_encoder(f"{file}?backbone=test_vit")
    torch.testing.assert_close(features(encoder.backbone, 160), features(source, 160))
    assert encoder.preprocess.size == 160
    smaller = load_encoder(file, backbone="test_vit", image_size=96)
    assert features(smaller.backbone, 96).shape == (2, 64)
    source.set_input_size(img_size=96)
    torch.testing.assert_close(features(smaller.backbone, 96), features(source, 96))


@pytest.mark.slow
def test_a_vit_of_shapes_that_no_other_network_has(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("test_vit").eval()
    file = tmp_path / "dino_vit.pth"
    torch.save({"teacher": named("backbone.", source), "student": named("module.backbone.", source)}, file)
    encoder = load_encoder(file)
    source.reset_classifier(0)
    torch.testing.assert_close(features(encoder.backbone, 160), features(source, 160))
    assert encoder.spec == load_encoder("timm:test_vit?pretrained=false").spec
    assert "test_vit from teacher.backbone.*, the one network of timm with these shapes, without" in encoder.name
    wide = {name: torch.zeros(3, *tensor.shape[1:]) for name, tensor in source.state_dict().items() if tensor.ndim}
    torch.save({"teacher": {f"backbone.{name}": tensor for name, tensor in wide.items()}}, file)
    with pytest.raises(CheckpointError, match=r"begin with teacher.*--backbone NAME"):
        load_encoder(file)


def test_safetensors_of_timm(tmp_path):
    torch.manual_seed(0)
    source = lively(timm.create_model("resnet18", num_classes=0))
    save_file(source.state_dict(), tmp_path / "timm.safetensors")
    encoder = load_encoder(tmp_path / "timm.safetensors", image_size=96, mean=(0.5,) * 3, std=(0.2,) * 3)
    torch.testing.assert_close(features(encoder.backbone), features(source))
    assert (encoder.preprocess.size, encoder.preprocess.resize, encoder.preprocess.mean) == (96, 110, (0.5,) * 3)


def test_safetensors_whose_first_bytes_look_like_a_pickle(tmp_path):
    file = tmp_path / "unlucky.safetensors"
    weights = narrow().state_dict()
    # The length is padded to eights.
    for length in range(0, 256, 8):
        save_file(weights, file, metadata={"x": "y" * length})
        if file.read_bytes()[:1] == b"\x80":
            break
    assert file.read_bytes()[:1] == b"\x80"
    assert load_encoder(file).spec.backbone == "resnet10_16"


def test_several_networks_are_asked_about(tmp_path):
    one, two = narrow(), narrow(1)
    torch.save(named("a.", one) | named("b.", two), tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"several networks: choose one by prefix=, one of a\., b\."):
        load_encoder(tmp_path / "two.pth")
    encoder = load_encoder(f"{tmp_path}/two.pth?prefix=a")
    torch.testing.assert_close(features(encoder.backbone), features(one))
    with pytest.raises(CheckpointError, match="no network at prefix='c'"):
        load_encoder(tmp_path / "two.pth", prefix="c")


def test_one_network_under_two_names(tmp_path):
    network = narrow()
    torch.save(named("net.", network) | named("online.net.", network), tmp_path / "twice.pth")
    assert "from net.*, without online" in load_encoder(tmp_path / "twice.pth").name


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def test_pickled_code_is_named_and_never_run(tmp_path):
    file = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": narrow().state_dict(), "hyper_parameters": Bomb()}, file)
    with pytest.raises(
        CheckpointError, match=r"_pytest.*could run any code.*\['state_dict'\], '.*/lightning-weights\.pth'"
    ):
        load_encoder(file)


def without(network, *names):
    return {name: tensor for name, tensor in network.state_dict().items() if name not in names}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"epoch": 3}, "holds no tensors"),
        (lambda: [1, 2], "holds no tensors: it is a list"),
        (lambda: {"a.weight": torch.ones(3)}, "begin with a. Of another network"),
        (lambda: without(narrow(), "layer3.0.bn2.weight"), "it lacks layer3.0.bn2.weight"),
        (lambda: narrow().state_dict() | {"layer1.0.se.weight": torch.ones(2)}, "it has layer1.0.se.weight besides"),
        (lambda: narrow().state_dict() | {"bn1.weight": torch.ones(2)}, "does not fit backbone 'resnet10_16'"),
        (lambda: resnet().layer1.state_dict(), "no ResNet|begin with"),
        (lambda: named("layer4.1.", narrow().layer4[0]) | narrow().state_dict(), r"\(1, 1, 1, 2\) blocks a stage"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_files_that_hold_no_network(tmp_path, content, message):
    torch.save(content(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        load_encoder(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 no zip", b"\x80\x02 no pickle"])
def test_files_that_are_no_checkpoints(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        load_encoder(tmp_path / "x.pth")


def test_a_checkpoint_that_is_cut_off(tmp_path):
    file = tmp_path / "x.pth"
    torch.save(narrow().state_dict(), file)
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_encoder(file)


def test_another_network_than_asked_for(tmp_path):
    torch.save(narrow().state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds a resnet10_16, not a resnet50"):
        load_encoder(tmp_path / "x.pth", backbone="resnet50")
    with pytest.raises(CheckpointError, match="holds no vit_tiny_patch16_224"):
        load_encoder(tmp_path / "x.pth", backbone="vit_tiny_patch16_224")
    with pytest.raises(CheckpointError, match="did you mean"):
        load_encoder(tmp_path / "x.pth", backbone="resnet81")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("image_sise=96", "did you mean 'image_size'"),
        ("image_size=big", "whole number of at least 4"),
        ("image_size=2", "whole number of at least 4"),
        ("mean=1,2", "three numbers"),
        ("std=0,0,0", "three numbers above 0"),
        ("pretrained=false", "pretrained cannot be chosen here"),
        ("", "no option after the question mark"),
    ],
)
def test_questions_that_are_none(tmp_path, question, message):
    torch.save(narrow().state_dict(), tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=message):
        load_encoder(f"{tmp_path / 'x.pth'}?{question}")


def test_a_file_with_a_question_mark_in_its_name(tmp_path):
    torch.save(narrow().state_dict(), tmp_path / "is it?.pth")
    assert load_encoder(tmp_path / "is it?.pth").spec.backbone == "resnet10_16"


def test_timm_untrained():
    encoder = load_encoder("timm:test_vit?pretrained=false")
    usual = timm.data.resolve_model_data_config(timm.create_model("test_vit"))
    assert (encoder.preprocess.size, encoder.preprocess.mean) == (usual["input_size"][-1], usual["mean"])
    assert encoder.preprocess.resize == int(160 / usual["crop_pct"])
    again = load_encoder("timm:test_vit", pretrained=False)
    assert torch.equal(features(encoder.backbone, 160), features(again.backbone, 160))
    assert encoder.name == "timm:test_vit (untrained)"
    assert load_encoder("timm:test_vit?pretrained=false&image_size=96").preprocess.size == 96


@pytest.fixture
def answering(monkeypatch, tmp_path):
    """As where there is a network, and nothing fetched yet."""
    monkeypatch.setattr(timm_weights, "_silence_of", lambda url: None)
    monkeypatch.setattr(timm_weights.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(timm_weights.constants, "HF_HUB_OFFLINE", False)


def test_timm_with_its_weights(monkeypatch, answering):
    """The fetching is timm's; here it finds the weights in memory."""
    source = lively(timm.create_model("resnet18"))
    create = timm.create_model

    def local(name, **keywords):
        overlay = {"state_dict": source.state_dict()} if keywords["pretrained"] else None
        return create(name, pretrained_cfg_overlay=overlay, **keywords)

    monkeypatch.setattr(timm, "create_model", local)
    encoder = load_encoder("timm:resnet18.a1_in1k")
    source.reset_classifier(0)
    torch.testing.assert_close(features(encoder.backbone), features(source))
    assert encoder.spec.backbone == "resnet18.a1_in1k"


def test_timm_whose_fetching_fails(monkeypatch, answering):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError, match=r"timm:resnet18: .*cannot be fetched: no network.*Hugging Face cache"):
        load_encoder("timm:resnet18")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("timm:resnet81", "did you mean"),
        ("timm:", "unknown backbone"),
        ("torchvision:resnet18", "timm:resnet50.tv_in1k"),
        ("hf-hub:somebody/thing", "only timm's networks are fetched"),
    ],
)
def test_places_that_are_none(place, message):
    with pytest.raises(CheckpointError, match=message):
        load_encoder(place)


def test_init_of_a_run_takes_them_too(tmp_path):
    from stopgrad.config import Config
    from stopgrad.train.build import build_method

    network = narrow()
    torch.save({"state_dict": named("module.encoder.", network)}, tmp_path / "simsiam.pth.tar")
    config = Config().replace(backbone="resnet10_16", init=str(tmp_path / "simsiam.pth.tar"))
    method = build_method(config, torch.device("cpu"))
    assert torch.equal(method.backbone.conv1.weight.contiguous(), network.conv1.weight)


def test_pickle_of_plain_python_is_no_checkpoint(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(CheckpointError, match=r"x.pkl"):
        load_encoder(tmp_path / "x.pkl")
