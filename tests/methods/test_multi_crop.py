"""Methods that take local views: SimSiam and BYOL, symmetric and guided, plain and source-first; DINO."""

import pytest
import torch
from torch import nn

from stopgrad.config import Config
from stopgrad.errors import ConfigError
from stopgrad.methods import build
from stopgrad.methods.choice import SourceChoice
from stopgrad.methods.siamese import Siamese
from stopgrad.objective.distillation import self_distillation
from stopgrad.objective.guided import GuidedStopGradientLoss
from stopgrad.settings import LOCAL_VIEW_METHODS, METHOD_NAMES
from stopgrad.train.build import build_method

CPU = torch.device("cpu")
TINY = {"backbone": "resnet10_16", "stem": "small", "image_size": 16, "local_size": 8, "projector_width": 16,
        "projection_dim": 16, "predictor_width": 8, "prototypes": 12, "local_views": 3}  # fmt: skip


class Pooled(nn.Module):
    """A backbone without BatchNorm that takes any size."""

    num_features = 8

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, images):
        return self.conv(images).relu().mean(dim=(2, 3))


@pytest.fixture
def views(generator):
    return torch.randn(2, 6, 3, 16, 16, generator=generator)


@pytest.fixture
def local(generator):
    return torch.randn(3, 6, 3, 8, 8, generator=generator)


def siamese(guide, **settings):
    torch.manual_seed(0)
    choice = SourceChoice(guide, settings.pop("partners", "mutual"), **settings.pop("options", {}))
    return Siamese(Pooled(), nn.Linear(8, 5), nn.Linear(5, 5), choice=choice, **settings)


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("guide", ["symmetric", "nearest_views", "random_views", "farthest_views"])
def test_loss_equals_the_module_on_the_same_projections(views, local, momentum, guide):
    method = siamese(guide, ema_momentum=momentum)
    loss, _ = method(views, seeded(), local)
    z = torch.stack([method.encoder(view) for view in views], dim=1)
    p = torch.stack([method.predictor(method.encoder(view)) for view in views], dim=1)
    q = torch.stack([method.predictor(method.encoder(view)) for view in local], dim=1)
    expected = GuidedStopGradientLoss(guide, generator=seeded())(p, z, local=q)
    torch.testing.assert_close(loss, expected)


def gradients(method, *inputs):
    loss, seen = method(*inputs)
    loss.backward()
    return loss, seen, {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("options", [{}, {"keep": 0.5}])
@pytest.mark.parametrize(("num_views", "partners"), [(2, "mutual"), (4, "derangement")])
def test_source_first_is_the_same_without_batchnorm(local, momentum, options, num_views, partners, generator):
    views = torch.randn(num_views, 6, 3, 16, 16, generator=generator)
    settings = {"ema_momentum": momentum, "options": options, "partners": "mutual" if options else partners}
    plain, first = (
        gradients(siamese("nearest_views", source_first=first, **settings), views, seeded(), local)
        for first in (False, True)
    )
    torch.testing.assert_close(plain, first)


@pytest.mark.parametrize("source_first", [False, True])
def test_the_guide_sees_the_views_alone(views, local, source_first):
    """Other local views change neither the choice nor what is watched about it."""
    method = siamese("nearest_views", source_first=source_first)
    seen = [method(views, seeded(), of)[1] for of in (local, 3 * local, local.flip(0)[:1])]
    _, without = method(views, seeded())
    assert all(one == without for one in seen)


def test_without_local_views_nothing_changes(views):
    for source_first in (False, True):
        method = siamese("nearest_views", source_first=source_first)
        assert torch.equal(method(views, seeded())[0], method(views, seeded(), None)[0])


@pytest.mark.parametrize("source_first", [False, True])
def test_no_local_view_moves_running_statistics_or_passes_the_target_encoder(views, local, source_first):
    settings = {"method": "byol", "guide": "nearest_views", "source_first": source_first}
    states, passes = [], []
    for more in ((), (local,)):
        torch.manual_seed(0)
        method = build(Config().replace(**TINY, **settings))
        method.target_encoder[0].register_forward_hook(lambda _m, inputs, _o: passes.append(tuple(inputs[0].shape[2:])))
        method(views, seeded(), *more)
        states.append({n: b.clone() for n, b in method.named_buffers()})
    assert set(passes) == {(16, 16)}
    torch.testing.assert_close(states[0], states[1])


@pytest.mark.parametrize("name", LOCAL_VIEW_METHODS)
@pytest.mark.parametrize("source_first", [False, True])
def test_two_sizes_in_bf16(views, local, name, source_first):
    settings = {} if name == "dino" else {"source_first": source_first}
    method = build(Config().replace(**TINY, method=name, **settings))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = method(views, seeded(), local)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []


def test_dino_s_local_views_predict_both_views_of_the_teacher(views, local):
    torch.manual_seed(0)
    method = build(Config().replace(**TINY, method="dino")).eval()
    loss, _ = method(views, seeded(), local)
    teacher = [method.target_encoder(view) for view in views]
    student = [method.encoder(view) for view in (*views, *local)]
    pairs = [(0, 1), (1, 0), *((2 + i, t) for i in range(3) for t in range(2))]
    terms = [self_distillation(student[s], teacher[t], method.centre) for s, t in pairs]
    torch.testing.assert_close(loss, torch.stack(terms).mean())


@pytest.mark.parametrize("name", sorted(set(METHOD_NAMES) - set(LOCAL_VIEW_METHODS)))
def test_methods_that_take_none_are_told(name):
    with pytest.raises(ConfigError, match="only simsiam, byol, dino take local views"):
        Config().replace(method=name, local_views=2)


def test_a_method_that_does_not_say_that_it_takes_them_is_told(monkeypatch):
    """One of the user's own, say."""
    monkeypatch.setattr(Siamese, "takes_local_views", False)
    with pytest.raises(ConfigError, match="takes none"):
        build_method(Config().replace(**TINY), CPU)


@pytest.mark.parametrize(("settings", "message"), [
    ({"local_size": 20}, "from 4 to image_size = 16, or 0 for 8"),
    ({"local_size": 3}, "from 4 to image_size"),
    ({"local_views": 11}, "from 0 to 10"),
    ({"local_scale_min": 0.5, "local_scale_max": 0.3}, "local_scale_min = 0.5 is above local_scale_max = 0.3"),
])  # fmt: skip
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config().replace(**{**TINY, **settings})


@pytest.mark.parametrize(("image_size", "side"), [(224, 96), (128, 64), (96, 40), (64, 24), (32, 16), (24, 12), (8, 4)])
def test_the_side_of_local_views(image_size, side):
    config = Config().replace(image_size=image_size, local_views=2)
    assert config.data.local_side == side
    assert config.replace(local_size=8).data.local_side == 8


def test_a_vit_takes_local_views_of_whole_patches():
    vit = {"backbone": "vit_tiny_patch16_224", "image_size": 64, "projector_width": 16, "projection_dim": 16,
           "predictor_width": 8, "local_views": 2}  # fmt: skip
    method = build_method(Config().replace(**vit, local_size=32), CPU)
    loss, _ = method(torch.randn(2, 4, 3, 64, 64), seeded(), torch.randn(2, 4, 3, 32, 32))
    assert torch.isfinite(loss)
    with pytest.raises(ConfigError, match="fails on images of 24 x 24"):
        build_method(Config().replace(**vit), CPU)


def test_a_network_of_one_size_is_told(monkeypatch):
    monkeypatch.setattr("stopgrad.train.build.takes_any_size", lambda backbone: False)
    with pytest.raises(ConfigError, match="takes images of one size only"):
        build_method(Config().replace(**TINY), CPU)
