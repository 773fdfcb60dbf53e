"""Training from weights that exist: the start as it came, what moves, and which encoder is kept."""

import copy
import json

import pytest
import torch
from recorder import Recorder
from safetensors.torch import load_file
from torch import nn

import stopgrad
from stopgrad.config import Config
from stopgrad.errors import CheckpointError, ConfigError, DataError, Interrupted, NonFiniteLossError
from stopgrad.methods import METHODS
from stopgrad.train.build import build_method
from stopgrad.train.optim import build_optimizer, set_lr
from stopgrad.train.start import own_backbone


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose encoder others start from."""
    from conftest import TINY

    out = tmp_path_factory.mktemp("start") / "first"
    return stopgrad.pretrain(out=out, recipe="digits", steps=30, reporter=Recorder(), **TINY)


def adapted(trained, out, tiny, **settings):
    given = {**tiny, "steps": 6, "image_size": 12, **settings}
    given.pop("backbone", None)
    return stopgrad.pretrain(out=out, recipe="adapt", init=str(trained.path), reporter=Recorder(), **given)


def metrics_of(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_start_is_left_as_it_came_and_measured(trained, tmp_path, tiny):
    run = adapted(trained, tmp_path / "run", tiny, lr=0.0)
    came = load_file(trained.path / "encoder.safetensors")
    for name in ("start.safetensors", "encoder.safetensors"):
        kept = load_file(run.path / name)
        assert all(torch.equal(came[key], kept[key]) for key in came), name
    assert run.metrics["start_is"] == "as it started"
    assert set(run.metrics["knn"]) == {"trained", "start", "pixels", "pixels_centred"}
    assert run.metrics["knn"]["start"] == trained.metrics["knn"]["trained"]
    # Nothing moved, so nothing was better.
    assert run.metrics["kept"]["step"] == 0
    assert run.metrics["verdict"] == "kept_start"
    assert run.metrics["knn_paired"]["difference"] == 0


@pytest.mark.slow
def test_backbone_and_normalisation_come_with_the_weights(trained, tmp_path, tiny):
    run = adapted(trained, tmp_path / "run", tiny)
    config = stopgrad.artifacts.run_dir.RunDir(run.path).read_config()
    first = stopgrad.artifacts.run_dir.RunDir(trained.path).read_config()
    assert config.network.backbone == "resnet10_16"
    assert config.network.stem == "small"
    assert config.augmentation.mean == first.augmentation.mean
    assert run.encoder.spec.mean == first.augmentation.mean
    # A file that repeats the run needs no resolving.
    again = stopgrad.pretrain(out=tmp_path / "again", config=run.path / "config.toml", reporter=Recorder())
    a, b = (load_file(r.path / "encoder.safetensors") for r in (run, again))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_the_best_measured_is_kept_and_not_the_end(trained, tmp_path, tiny, monkeypatch):
    from stopgrad.train import monitor

    scores = iter([0.5, 0.6, 0.9, 0.7, 0.9, 0.8, 0.8, 0.8])
    monkeypatch.setattr(monitor.KnnProtocol, "leave_one_out", lambda self, side: next(scores))
    run = adapted(trained, tmp_path / "run", tiny, lr=0.02, backbone_lr=1.0, head_warmup=0.0, batch_size=256,
                  steps=25, monitor_every_epochs=1, devices=1)  # fmt: skip
    # 5 steps an epoch: the start, then steps 5, 10 (0.9, and so is step 20, which is no better), 15 ...
    assert run.metrics["kept"]["step"] == 10
    assert run.metrics["kept"]["score"] == 0.9
    best = stopgrad.artifacts.checkpoint.load_checkpoint(run.path / "checkpoints" / "best.ckpt")
    assert best["step"] == 10
    encoder = load_file(run.path / "encoder.safetensors")
    assert all(torch.equal(best["encoder"][f"0.{name}"], encoder[name]) for name in encoder)
    assert "Kept from step 10 of 25" in run.metrics["verdict_words"]


@pytest.mark.slow
def test_frozen_norms_keep_their_statistics_and_train_their_scales(trained, tmp_path, tiny):
    frozen = adapted(trained, tmp_path / "frozen", tiny, keep="last", head_warmup=0.0, lr=0.5)
    moving = adapted(trained, tmp_path / "moving", tiny, keep="last", head_warmup=0.0, lr=0.5, norm="batch")
    came, kept, moved = (load_file(r.path / "encoder.safetensors") for r in (trained, frozen, moving))
    statistics = [name for name in came if "running" in name]
    assert statistics
    assert all(torch.equal(came[name], kept[name]) for name in statistics)
    assert not any(torch.equal(came[name], moved[name]) for name in statistics)
    assert not torch.equal(came["bn1.weight"], kept["bn1.weight"])


def method_of(**settings):
    base = Config().replace(backbone="resnet10_16", projector_width=16, projection_dim=16, predictor_width=8,
                            method="byol", image_size=16)  # fmt: skip
    config = base.replace(**settings)
    return config, build_method(config, torch.device("cpu"))


def test_the_backbone_waits_while_the_heads_warm_up():
    config, method = method_of(head_warmup=0.5, backbone_lr=0.1)
    optimizer = build_optimizer(method, config)
    names = [group["name"] for group in optimizer.param_groups]
    assert names == ["backbone", "heads", "predictor"]
    set_lr(optimizer, 1.0, 0.5, heads_only=True)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.5, 0.5]
    set_lr(optimizer, 1.0, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5, 0.5]


def test_rates_fall_from_layer_to_layer():
    config, method = method_of(layer_decay=0.5)
    optimizer = build_optimizer(method, config)
    set_lr(optimizer, 1.0, 1.0)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    stem, early, late = (
        rate_of[id(p)]
        for p in (method.backbone.conv1.weight, method.backbone.layer1[0].conv1.weight,
                  method.backbone.layer4[0].conv1.weight)
    )  # fmt: skip
    assert stem < early < late <= 1.0
    assert rate_of[id(method.encoder[1][0].weight)] == 1.0
    everything = {id(p) for p in method.parameters() if p.requires_grad}
    assert set(rate_of) == everything


def test_first_layers_can_be_frozen():
    config, method = method_of(freeze_layers=2)
    backbone = method.backbone
    assert not any(p.requires_grad for p in backbone.conv1.parameters())
    assert not any(p.requires_grad for p in backbone.layer1.parameters())
    assert all(p.requires_grad for p in backbone.layer4.parameters())
    optimized = {id(p) for group in build_optimizer(method, config).param_groups for p in group["params"]}
    assert id(backbone.conv1.weight) not in optimized
    with pytest.raises(ConfigError, match="it has 5 layers"):
        method_of(freeze_layers=5)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))
        self.num_features = 99  # not the dimension of what it returns

    def forward(self, x):
        return self.body(x).mean(dim=(2, 3))


@pytest.mark.slow
def test_a_network_of_ones_own(tmp_path, tiny):
    network = Own()
    before = copy.deepcopy(network.state_dict())
    given = {**tiny, "backbone": network, "steps": 4, "recipe": "digits"}
    run = stopgrad.pretrain(out=tmp_path / "run", reporter=Recorder(), **given)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert run.metrics["start_is"] == "as it started"
    config = stopgrad.artifacts.run_dir.RunDir(run.path).read_config()
    assert config.network.backbone == "module:Own"
    pixels = torch.randint(256, (3, 3, 12, 12), dtype=torch.uint8)
    assert run.encoder.embed(pixels).shape == (3, 6)
    assert stopgrad.load_encoder(run.path, backbone=Own()).embed(pixels).equal(run.encoder.embed(pixels))
    with pytest.raises(CheckpointError, match="of a network of your own, Own"):
        stopgrad.load_encoder(run.path)
    with pytest.raises(CheckpointError, match="does not fit a Linear"):
        stopgrad.load_encoder(run.path, backbone=nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Conv2d(3, 4, 3), r"returns \(2, 4, 10, 10\) for 2 images: needs pooled features"),
        (nn.Linear(5, 4), "fails on images of 12 x 12"),
        (nn.Identity(), "needs pooled features"),
    ],
)
def test_networks_that_are_no_backbones(network, words):
    with pytest.raises(ConfigError, match=words):
        own_backbone(network, 12)


def test_dropout_is_off_in_targets_of_their_own_pass():
    config, _ = method_of(method="byol")
    method = METHODS["byol"](config, own_backbone(Own(), 16))
    method.train()
    drawn, silent = (encoder[0].body[3] for encoder in (method.encoder, method.target_encoder))
    assert drawn.training
    assert not silent.training
    assert method.target_encoder[0].body[1].training
    frozen = METHODS["byol"](config, own_backbone(Own(), 16))
    frozen.norms_frozen = True
    frozen.train()
    assert not any(encoder[0].body[1].training for encoder in (frozen.encoder, frozen.target_encoder))
    assert frozen.encoder[1].training


@pytest.mark.parametrize("method", ["simsiam", "byol"])
@pytest.mark.parametrize("guide", ["symmetric", "nearest_views"])
@pytest.mark.slow
def test_a_vit_trains_by_adamw(method, guide, tmp_path):
    """The recipe for ViTs, small: the patches' projection stays, everything else moves and stays finite."""
    out = tmp_path / "run"
    settings = {
        "backbone": "vit_tiny_patch16_224", "image_size": 32, "batch_size": 16, "steps": 3, "warmup_epochs": 0.0,
        "projector_width": 32, "predictor_width": 32, "projection_dim": 16, "lr": 1e-2, "precision": "fp32",
        "monitor_images": 64, "baselines": False, "report": False, "ema_schedule": "constant",
    }  # fmt: skip
    run = stopgrad.pretrain(out=out, recipe="imagenet_vit", method=method, guide=guide, reporter=Recorder(), **settings)
    after = load_file(run.path / "encoder.safetensors")
    torch.manual_seed(0)
    config = stopgrad.artifacts.run_dir.RunDir(run.path).read_config()
    before = build_method(config, torch.device("cpu")).backbone.state_dict()
    assert torch.equal(before["patch_embed.proj.weight"], after["patch_embed.proj.weight"])
    assert not torch.equal(before["blocks.0.attn.qkv.weight"], after["blocks.0.attn.qkv.weight"])
    assert all(tensor.isfinite().all() for tensor in after.values())


@pytest.mark.slow
def test_a_class_token_is_asked_of_a_network_that_has_one():
    pooled = {}
    for pool in ("default", "token", "avg"):
        _, method = method_of(backbone="vit_tiny_patch16_224", pool=pool, image_size=32)
        torch.manual_seed(1)
        pooled[pool] = method.backbone.eval()(torch.randn(1, 3, 32, 32))
    assert torch.equal(pooled["default"], pooled["token"])
    assert not torch.equal(pooled["token"], pooled["avg"])
    with pytest.raises(ConfigError, match="it has no class token; use pool = 'avg'"):
        method_of(pool="token")
    with pytest.raises(ConfigError, match="it has no patches whose side can change"):
        method_of(patch_size=8)
    _, method = method_of(backbone="vit_tiny_patch16_224", patch_size=8, image_size=32)
    assert method.backbone.patch_embed.num_patches == 16


@pytest.mark.slow
def test_group_norms_in_place_of_batch_norms(tmp_path, tiny):
    run = stopgrad.pretrain(out=tmp_path / "run", recipe="digits", norm="group", steps=2, reporter=Recorder(), **tiny)
    again = stopgrad.load_encoder(run.path)
    assert again.spec.norm == "group"
    assert not any(isinstance(part, nn.BatchNorm2d) for part in again.backbone.modules())
    assert any(isinstance(part, nn.GroupNorm) for part in again.backbone.modules())
    with pytest.raises(ConfigError, match="trained with other norms"):
        stopgrad.pretrain(out=tmp_path / "other", init=str(run.path), norm="group", reporter=Recorder())


def test_thirty_images_are_enough_to_run_and_are_said_to_be_few(tmp_path, tiny):
    from stopgrad.data.open import open_images
    from stopgrad.data.sources import Subset

    recorder = Recorder()
    few = Subset(open_images("").train, range(30))
    run = stopgrad.pretrain(few, out=tmp_path / "run", recipe="digits", steps=3, reporter=recorder, **tiny)
    assert run.metrics["images_seen"] == 90
    assert any("30 images are few" in text for text in recorder.said)
    with pytest.raises(DataError, match="3 readable images for 1 process: training needs at least 4"):
        stopgrad.pretrain(Subset(few, range(3)), out=tmp_path / "other", recipe="digits", reporter=Recorder(), **tiny)


@pytest.mark.slow
def test_ctrl_c_at_the_figures_leaves_the_run_finished(tmp_path, tiny, monkeypatch):
    from stopgrad.train import finish

    def interrupted(*_, **__):
        raise Interrupted("by Ctrl-C after training")

    with monkeypatch.context() as patch:
        patch.setattr(finish, "measure_table", interrupted)
        with pytest.raises(Interrupted):
            stopgrad.pretrain(out=tmp_path / "run", recipe="digits", steps=3, reporter=Recorder(), **tiny)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["knn"] is None
    assert stopgrad.load_encoder(tmp_path / "run").embed(torch.zeros(2, 3, 12, 12, dtype=torch.uint8)).shape[0] == 2
    resumed = stopgrad.pretrain(out=tmp_path / "run", resume=True, reporter=Recorder())
    assert resumed.metrics["knn"]["trained"] > 0


@pytest.mark.slow
def test_figures_take_no_longer_than_they_may(tmp_path, tiny, monkeypatch):
    from stopgrad.train import baselines

    monkeypatch.setattr(baselines, "_affordable", lambda *_: 500)
    run = stopgrad.pretrain(out=tmp_path / "run", recipe="digits", steps=3, reporter=Recorder(), **tiny)
    assert run.metrics["knn_is_sample"]
    assert "a random sample, for time: bank of 399 of 1,437" in run.metrics["knn_protocol"]
    assert run.metrics["knn_queries"] == 250
    whole = stopgrad.pretrain(
        out=tmp_path / "whole", recipe="digits", steps=3, final_images=10_000, reporter=Recorder(), **tiny
    )
    assert not whole.metrics["knn_is_sample"]
    assert "a random sample" not in whole.metrics["knn_protocol"]


def flat_folder(at):
    """Digits without labels."""
    from PIL import Image
    from sklearn.datasets import load_digits

    at.mkdir()
    for number, image in enumerate(load_digits().images[:200]):
        Image.fromarray((image * 15.9).astype("uint8")).convert("RGB").resize((16, 16)).save(at / f"{number}.png")
    return at


@pytest.mark.parametrize("lr", [0.0, 0.01])
@pytest.mark.slow
def test_without_labels_the_end_is_kept_only_where_nothing_speaks_against_it(trained, tmp_path, tiny, lr, monkeypatch):
    from stopgrad.train import finish

    if lr:
        monkeypatch.setattr(finish, "is_harmless", lambda now, start: True)
    run = adapted(trained, tmp_path / "run", tiny, lr=lr, data=str(flat_folder(tmp_path / "photos")), head_warmup=0.0)
    kept, step = run.metrics["kept"], 6 if lr else 0
    assert kept["step"] == step
    assert kept["score"] is None
    came = load_file(run.path / "start.safetensors")
    encoder = load_file(run.path / "encoder.safetensors")
    assert all(torch.equal(came[name], encoder[name]) for name in came) == (lr == 0)
    assert ("Kept as it started" if not lr else "Kept from the end") in run.metrics["verdict_words"]
    assert "without labels" in run.metrics["verdict_words"]


@pytest.mark.slow
def test_features_that_are_no_longer_finite_end_the_run_with_a_way_out(trained, tmp_path, tiny, monkeypatch):
    from stopgrad.train import monitor

    real, calls = monitor.extract, []

    def broken(*args, **kwargs):
        kept, outputs = real(*args, **kwargs)
        calls.append(kept)
        return kept, outputs if len(calls) == 1 else [output * float("inf") for output in outputs]

    monkeypatch.setattr(monitor, "extract", broken)
    with pytest.raises(NonFiniteLossError, match=r"step 6: the features of plain images are no longer finite.* Lower"):
        adapted(trained, tmp_path / "run", tiny, monitor_every_epochs=1, steps=6, devices=1)


@pytest.mark.slow
def test_a_collapse_provoked_from_weights_is_told(trained, tmp_path, tiny):
    run = adapted(trained, tmp_path / "run", tiny, method="simsiam", guide="symmetric", predictor=False, norm="batch",
                  projector_norm="all", lr=2.0, backbone_lr=1.0, head_warmup=0.0, steps=100, keep="last")  # fmt: skip
    assert run.metrics["verdict"] == "collapsed"
    assert "as it started" in run.metrics["verdict_words"]
