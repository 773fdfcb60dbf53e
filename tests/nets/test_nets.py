import pytest
import torch
from torch import nn

from stopgrad.nets.backbones import SMALL_RESNETS, build_backbone, num_features
from stopgrad.nets.ema import ema_copy, ema_update
from stopgrad.nets.heads import build_predictor, build_projector


@pytest.mark.parametrize("name", [*SMALL_RESNETS, "resnet18", "test_vit", "test_convnext"])
def test_backbones_give_pooled_features(name):
    size = 160 if name == "test_vit" else 64
    backbone = build_backbone(name, image_size=size).eval()
    features = backbone(torch.zeros(2, 3, size, size))
    assert features.shape == (2, num_features(backbone))


@pytest.mark.parametrize(("stem", "stride"), [("small", 1), ("small_stride2", 2)])
def test_small_stem_keeps_the_resolution(stem, stride):
    backbone = build_backbone("resnet18", stem=stem, image_size=32)
    assert backbone.conv1.weight.shape == (64, 3, 3, 3)
    after_stem = backbone.maxpool(backbone.conv1(torch.zeros(1, 3, 32, 32)))
    assert after_stem.shape[2:] == (32 // stride, 32 // stride)


def test_small_resnets_have_a_stem_as_narrow_as_their_first_stage():
    backbone = build_backbone("resnet10_16", stem="small", image_size=32)
    assert backbone.conv1.out_channels == backbone.layer1[0].conv1.in_channels == 16
    assert sum(p.numel() for p in backbone.parameters()) == 307_536


def test_cifar_resnet18_has_the_size_of_the_papers():
    backbone = build_backbone("resnet18", stem="small", image_size=32)
    assert sum(p.numel() for p in backbone.parameters()) == 11_168_832


def test_residual_blocks_start_at_the_identity():
    backbone = build_backbone("resnet18")
    assert all(block.bn2.weight.abs().max() == 0 for block in backbone.layer1)


def test_image_size_reaches_networks_that_depend_on_it():
    backbone = build_backbone("test_vit", image_size=96).eval()
    assert backbone(torch.zeros(1, 3, 96, 96)).shape == (1, num_features(backbone))


@pytest.mark.parametrize(
    ("name", "stem", "message"),
    [
        ("resnet81", "standard", "did you mean 'resnet"),
        ("no such thing at all", "standard", "use a timm model name"),
        ("test_vit", "small", "no stem to replace"),
        ("resnet18", "tiny", "valid: standard, small"),
    ],
)
def test_bad_names(name, stem, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, stem=stem)


def test_small_resnets_have_no_pretrained_weights():
    with pytest.raises(ValueError, match="no pretrained weights"):
        build_backbone("resnet10_16", pretrained=True)


def test_projector_ends_in_batchnorm_without_affine():
    projector = build_projector(8, 16, 4, num_layers=3)
    assert [type(m).__name__ for m in projector] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert projector[-1].weight is None
    out = projector(torch.randn(64, 8))
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(dim=0, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)


def test_one_layer_projector():
    assert build_projector(8, 16, 4, num_layers=1)(torch.randn(6, 8)).shape == (6, 4)


def test_predictor_is_a_bottleneck_with_a_plain_end():
    predictor = build_predictor(16, 4)
    assert predictor[0].out_features == 4
    assert isinstance(predictor[-1], nn.Linear)
    assert predictor(torch.randn(6, 16)).shape == (6, 16)


def test_ema_moves_weights_by_the_momentum_and_leaves_buffers():
    online = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    target = ema_copy(online)
    assert not any(p.requires_grad for p in target.parameters())
    before = [p.clone() for p in target.parameters()]
    with torch.no_grad():
        for p in online.parameters():
            p.add_(1.0)
    online[1].running_mean.fill_(5.0)
    ema_update(target, online, 0.9)
    for p, b in zip(target.parameters(), before, strict=True):
        torch.testing.assert_close(p, b + 0.1)
    assert target[1].running_mean.max() == 0
