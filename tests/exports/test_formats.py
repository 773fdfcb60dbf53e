"""Exports: loaded by the programs they are for, with the very lines that are printed, they give the same features."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from recorder import Recorder
from torch import nn

import stopgrad
from stopgrad import export, load_encoder
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.place import IN_MEMORY
from stopgrad.encoder.load import save_encoder, spec_of
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.exports.hub import method_words
from stopgrad.exports.timm import crop_pct
from stopgrad.nets.backbones import build_backbone, num_features

# Backbone, stem, image size: by a name of timm's, with a stem that it has no name for, narrow, and no ResNet.
NETWORKS = {
    "resnet18": ("resnet18", "standard", 96),
    "cifar": ("resnet18", "small", 32),
    "narrow": ("resnet10_16", "small", 12),
    "narrow224": ("resnet10_16", "standard", 64),
    "stride2": ("resnet10_24", "small_stride2", 64),
    "lightly": ("resnet10_16", "small_linear", 32),
    "vit": ("test_vit", "standard", 96),
    "convnext": ("test_convnext", "standard", 96),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of these networks, made once each."""
    made = {}

    def get(kind):
        if kind not in made:
            name, stem, size = NETWORKS[kind]
            torch.manual_seed(0)
            backbone = build_backbone(name, stem=stem, image_size=size)
            for part in backbone.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.running_mean.normal_(0, 0.1)
                    part.running_var.uniform_(0.5, 1.5)
                    nn.init.uniform_(part.weight, 0.5, 1.0)
            run = RunDir(tmp_path_factory.mktemp(kind) / "run")
            run.create()
            config = Config().replace(image_size=size)
            spec = replace(spec_of(config, num_features(backbone)), backbone=name, stem=stem)
            save_encoder(run, backbone, spec)
            made[kind] = run.path
        return made[kind]

    return get


def features(network, size, dtype=torch.float32):
    torch.manual_seed(1)
    with torch.inference_mode():
        return network(torch.randn(3, 3, size, size))


def assert_same_features(run, network):
    encoder = load_encoder(run)
    size = encoder.preprocess.size
    torch.testing.assert_close(features(network, size), features(encoder.backbone, size), atol=1e-5, rtol=1e-4)


def run_lines(lines):
    names = {}
    exec(lines, names)
    return names


@pytest.mark.parametrize("kind", NETWORKS)
def test_timm_loads_it_with_the_lines_printed(runs, tmp_path, kind):
    exported = export(runs(kind), to="timm", out=tmp_path / "weights.safetensors")
    assert_same_features(runs(kind), run_lines(exported.load)["model"])
    assert exported.max_difference < 1e-5
    assert bool(exported.notes) == (kind not in ("resnet18", "vit", "convnext"))


def test_timm_takes_it_as_a_pretrained_file_too(runs, tmp_path):
    exported = export(runs("resnet18"), to="timm", out=tmp_path / "weights.safetensors")
    overlay = {"file": str(exported.path), "num_classes": 0}
    model = timm.create_model("resnet18", pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay).eval()
    assert_same_features(runs("resnet18"), model)


@pytest.mark.parametrize("kind", ["resnet18", "cifar"])
def test_torchvision_loads_it_strictly(runs, tmp_path, kind):
    pytest.importorskip("torchvision")
    exported = export(runs(kind), to="torchvision", out=tmp_path / "weights.pth")
    assert_same_features(runs(kind), run_lines(exported.load)["model"])
    assert not any(name.startswith("fc") for name in torch.load(exported.path, weights_only=True))


@pytest.mark.parametrize("kind", ["narrow", "vit"])
def test_torchvision_has_no_twin(runs, tmp_path, kind):
    with pytest.raises(ConfigError, match=r"no counterpart of .* Export to timm, onnx"):
        export(runs(kind), to="torchvision", out=tmp_path / "weights.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["narrow", "vit"])
def test_onnx_takes_any_batch(runs, tmp_path, kind):
    pytest.importorskip("onnxscript")
    exported = export(runs(kind), to="onnx", out=tmp_path / "encoder.onnx")
    assert exported.max_difference < 1e-4
    names = run_lines(exported.load)
    encoder = load_encoder(runs(kind))
    size = encoder.preprocess.size
    assert names["features"].shape == (2, encoder.spec.num_features)
    images = torch.randn(5, 3, size, size)
    found = names["session"].run(["features"], {"images": images.numpy()})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(found, encoder.backbone(images).numpy(), atol=1e-4)
    known = json.loads(names["session"].get_modelmeta().custom_metadata_map["stopgrad.preprocess"])
    assert (known["size"], known["resize"], known["mean"]) == (size, encoder.preprocess.resize, [0.485, 0.456, 0.406])
    assert os.listdir(tmp_path) == ["encoder.onnx"]


@pytest.mark.slow
def test_onnx_with_normalisation_inside(runs, tmp_path, rng):
    pytest.importorskip("onnxscript")
    exported = export(runs("narrow"), to="onnx", out=tmp_path / "encoder.onnx", with_preprocess=True)
    names = run_lines(exported.load)
    pixels = rng.integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    found = names["session"].run(["features"], {"images": pixels.transpose(0, 3, 1, 2).copy()})[0]
    np.testing.assert_allclose(found, load_encoder(runs("narrow")).embed(pixels, precision="fp32").numpy(), atol=1e-4)


def test_onnx_without_its_packages(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("stopgrad.exports.onnx.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'ONNX needs onnx, .*pip install "stopgrad\[onnx\]"'):
        export(runs("narrow"), to="onnx", out=tmp_path / "encoder.onnx")


def test_our_own_format_comes_back(runs, tmp_path):
    exported = export(runs("narrow"), to="safetensors", out=tmp_path / "deep" / "er" / "mine.safetensors")
    again = run_lines(exported.load)["encoder"]
    assert (again.spec, again.preprocess) == (
        load_encoder(runs("narrow")).spec,
        load_encoder(runs("narrow")).preprocess,
    )
    assert_same_features(runs("narrow"), again.backbone)
    assert os.stat(exported.path).st_mode & 0o777 == os.stat(tmp_path / "deep/er/mine.json").st_mode & 0o777


@pytest.mark.parametrize("kind", ["resnet18", "vit", "convnext"])
def test_hub_folder_is_what_timm_reads(runs, tmp_path, kind):
    exported = export(runs(kind), to="hub-folder", out=tmp_path / "mine")
    names = run_lines(exported.load)
    assert_same_features(runs(kind), names["model"])
    assert_same_features(runs(kind), names["encoder"].backbone)
    p = load_encoder(runs(kind)).preprocess
    config = timm.data.resolve_model_data_config(names["model"])
    assert (*config["input_size"], *config["mean"], *config["std"]) == (3, p.size, p.size, *p.mean, *p.std)
    assert int(p.size / config["crop_pct"]) == p.resize
    assert json.loads((tmp_path / "mine" / "preprocessing.json").read_text())["resize_shorter_side"] == p.resize
    # To fine-tune it: another head, the same body.
    tuned = timm.create_model(f"local-dir:{tmp_path / 'mine'}", pretrained=True, num_classes=10).eval()
    tuned.reset_classifier(0)
    assert_same_features(runs(kind), tuned)


@pytest.mark.parametrize("settings", [{"pool": "avg"}, {"patch_size": 8}, {"pool": "avg", "patch_size": 8}])
@pytest.mark.parametrize("to", ["timm", "hub-folder"])
@pytest.mark.slow
def test_timm_builds_vits_with_other_pooling_and_patches(tmp_path, tiny, settings, to):
    given = {**tiny, "backbone": "test_vit", "stem": "standard", "image_size": 32, "steps": 2}
    stopgrad.pretrain(out=tmp_path / "run", recipe="digits", reporter=Recorder(), **{**given, **settings})
    out = tmp_path / ("vit.safetensors" if to == "timm" else "vit-hub")
    done = export(tmp_path / "run", to=to, out=out)
    assert done.max_difference < 1e-3 * done.feature_scale


@pytest.mark.parametrize(("to", "out"), [("timm", "a.safetensors"), ("torchvision", "a.pth"), ("hub-folder", "a")])
@pytest.mark.slow
def test_groupnorms_are_refused_where_nobody_builds_them(tmp_path, tiny, to, out):
    given = {**tiny, "backbone": "resnet10_32", "norm": "group", "steps": 2}
    stopgrad.pretrain(out=tmp_path / "run", recipe="digits", reporter=Recorder(), **given)
    with pytest.raises(ConfigError, match=r"GroupNorms.*onnx or safetensors"):
        export(tmp_path / "run", to=to, out=tmp_path / out)
    assert not (tmp_path / out).exists()


def test_timm_prepares_images_as_we_do(runs, tmp_path, rng):
    export(runs("resnet18"), to="hub-folder", out=tmp_path / "mine")
    model = timm.create_model(f"local-dir:{tmp_path / 'mine'}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((320, 240), Image.BICUBIC)
    ours = load_encoder(runs("resnet18")).preprocess(smooth)
    # Pillow rounds to whole pixel values between the steps; one of 255 is 0.02 after division by std.
    assert (transform(smooth) - ours).abs().max() < 0.05


@pytest.mark.parametrize("kind", ["narrow"])
def test_hub_folder_without_a_name_in_timm(runs, tmp_path, kind):
    exported = export(runs(kind), to="hub-folder", out=tmp_path / "mine")
    names = run_lines(exported.load)
    assert_same_features(runs(kind), names["model"])
    assert_same_features(runs(kind), names["encoder"].backbone)
    assert not (tmp_path / "mine" / "config.json").exists()
    assert "timm has no name for" in exported.notes[0]


def test_the_lines_of_the_card_work(runs, tmp_path, monkeypatch):
    for kind in ("narrow", "vit"):
        export(runs(kind), to="hub-folder", out=tmp_path / kind)
        card = (tmp_path / kind / "README.md").read_text()
        Image.new("RGB", (20, 20)).save(tmp_path / "one.png")
        blocks = re.findall(r"```python\n(.*?)```", card, re.S)
        assert len(blocks) == 2
        monkeypatch.chdir(tmp_path)
        run_lines(blocks[0].replace("photos/", "one.png"))
        assert_same_features(runs(kind), run_lines(blocks[1])["model"])


@pytest.mark.slow
def test_the_card_says_what_the_run_knows(tmp_path, tiny):
    from stopgrad import pretrain

    run = pretrain(out=tmp_path / "digits", steps=2, **tiny)
    export(run.path, to="hub-folder", out=tmp_path / "mine")
    card = (tmp_path / "mine" / "README.md").read_text()
    for words in (
        "# mine", "1,437 images of scikit-learn's handwritten digits", "BYOL", "random weights, seed 0", "2 steps",
        run.metrics["verdict_words"], run.metrics["knn_protocol"], "raw pixels, mean-centred", "None chosen yet",
    ):  # fmt: skip
        assert words in card
    assert "/tmp" not in card
    assert "license:" not in card
    kept = RunDir(run.path)
    kept.write_json("environment.json", {**kept.read_environment(), "data": IN_MEMORY})
    export(run.path, to="hub-folder", out=tmp_path / "from memory")
    card = (tmp_path / "from memory" / "README.md").read_text()
    assert "1,437 images that were handed over in memory" in card
    assert "digits" not in card.partition("## What it is worth")[0].partition("## Training")[2]
    kept.write_config(kept.read_config().replace(path="sklearn:scattered-digits"))
    kept.write_json("environment.json", {k: v for k, v in kept.read_environment().items() if k != "data"})
    export(run.path, to="hub-folder", out=tmp_path / "scattered")
    assert (
        "of scikit-learn's digits, scattered, without their labels"
        in (tmp_path / "scattered" / "README.md").read_text()
    )
    kept.write_config(kept.read_config().replace(path="https://host/train-{0..9}.tar?signature=secret"))
    export(run.path, to="hub-folder", out=tmp_path / "from afar")
    card = (tmp_path / "from afar" / "README.md").read_text()
    assert "of `train-{0..9}.tar`" in card
    assert "secret" not in card


def test_a_foreign_checkpoint_is_converted(tmp_path):
    torch.manual_seed(0)
    source = build_backbone("resnet10_16", stem="small").eval()
    torch.save({"state_dict": {f"module.encoder.{n}": t for n, t in source.state_dict().items()}}, tmp_path / "x.pth")
    exported = export(tmp_path / "x.pth", to="hub-folder", out=tmp_path / "mine")
    assert_same_features(tmp_path / "mine", source)
    assert "from state_dict.module.encoder.*" in exported.encoder
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "Not known here: the weights were converted from `x.pth" in card


def test_the_card_has_the_licence_and_the_images_that_are_given(runs, tmp_path):
    exported = export(
        runs("narrow"), to="hub-folder", out=tmp_path / "mine", license="CC-BY-4.0",
        trained_on="1,200 scans of steel | from our mill, [free](to) use",
    )  # fmt: skip
    card = (tmp_path / "mine" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "1,200 scans of steel \\| from our mill, \\[free\\](to) use." in card
    assert "CC-BY-4.0, chosen by those who exported it" in card
    assert "None chosen yet" not in card
    assert exported.notes[-1] == "Read README.md before you publish it."
    with pytest.raises(ConfigError, match="an identifier of one word"):
        export(runs("narrow"), to="hub-folder", out=tmp_path / "other", license="mine\nevil: key")
    with pytest.raises(ConfigError, match="for the model card of hub-folder: timm has none"):
        export(runs("narrow"), to="timm", out=tmp_path / "x.safetensors", license="mit")


def test_what_is_there_stays(runs, tmp_path):
    for to, out in (("timm", "a.safetensors"), ("safetensors", "b.safetensors"), ("hub-folder", "c")):
        export(runs("narrow"), to=to, out=tmp_path / out)
        with pytest.raises(ConfigError, match="use --overwrite"):
            export(runs("narrow"), to=to, out=tmp_path / out)
        export(runs("narrow"), to=to, out=tmp_path / out, overwrite=True)
    (tmp_path / "d.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"d.json exists"):
        export(runs("narrow"), to="safetensors", out=tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    ("to", "out", "file"), [("safetensors", "d.safetensors", "d.json"), ("hub-folder", "", "README.md")]
)
def test_overwrite_replaces_nothing_of_anybody_elses(runs, tmp_path, to, out, file):
    (tmp_path / file).write_text("{}")
    with pytest.raises(ConfigError, match=f"{file} is not of an earlier export"):
        export(runs("narrow"), to=to, out=tmp_path / out, overwrite=True)
    assert (tmp_path / file).read_text() == "{}"


def test_another_network_in_the_same_folder_leaves_no_old_config(runs, tmp_path):
    export(runs("vit"), to="hub-folder", out=tmp_path / "mine")
    export(runs("narrow"), to="hub-folder", out=tmp_path / "mine", overwrite=True)
    assert not (tmp_path / "mine" / "config.json").exists()


def test_what_is_exported_is_never_overwritten(runs, tmp_path):
    source = runs("narrow") / "encoder.safetensors"
    before = source.read_bytes()
    for run, to, out in (
        (source, "timm", source),
        (f"{source}?image_size=16", "timm", source),
        (runs("narrow"), "timm", source),
        (runs("narrow"), "hub-folder", runs("narrow")),
    ):
        with pytest.raises(ConfigError, match="is what is exported"):
            export(run, to=to, out=out, overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("to", "out", "message"),
    [
        ("tim", "a.safetensors", "did you mean 'timm'"),
        ("timm", "a.pth", r"timm is a .safetensors file, such as a.safetensors"),
        ("onnx", "a", r"such as a.onnx"),
        ("hub-folder", "file", "needs a folder"),
    ],
)
def test_places_that_do_not_fit(runs, tmp_path, to, out, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=message):
        export(runs("narrow"), to=to, out=tmp_path / out)


def test_preprocessing_goes_with_onnx_alone(runs, tmp_path):
    with pytest.raises(ConfigError, match="onnx only"):
        export(runs("narrow"), to="timm", out=tmp_path / "a.safetensors", with_preprocess=True)


def test_no_encoder_there(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        export(tmp_path / "none", to="timm", out=tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(("size", "resize"), [(12, 12), (64, 64), (96, 110), (160, 183), (224, 256), (49, 55), (7, 9)])
def test_timm_gets_the_resize_back(size, resize):
    assert int(size / crop_pct(size, resize)) == resize


def test_the_callers_own_encoder_is_left_alone(runs, tmp_path):
    encoder = load_encoder(runs("narrow"))
    encoder.backbone.train()
    exported = export(encoder, to="timm", out=tmp_path / "a.safetensors")
    assert encoder.backbone.training
    assert_same_features(runs("narrow"), run_lines(exported.load)["model"])
    with pytest.raises(ConfigError, match="onnx alone"):
        export(replace(encoder, spec=None), to="timm", out=tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "SimSiam (arXiv 2011.10566), guided stop-gradient (Lee and Lee, NeurIPS 2023, arXiv 2503.09058); 2 views, "
         "with a predictor"),
        ({"method": "vicreg"}, "vicreg, 2 views"),
        ({"method": "byol", "guide": "my_guides:mine", "predictor": False}, "BYOL (arXiv 2006.07733), guide "
         "`my_guides:mine`; 2 views, without a predictor"),
    ],
)  # fmt: skip
def test_the_card_knows_every_method(settings, words):
    assert method_words(Config().replace(**settings)) == words
