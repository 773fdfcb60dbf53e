import pytest
import torch
from torch import nn

from stopgrad.config import Config
from stopgrad.methods import METHODS
from stopgrad.methods.choice import SourceChoice
from stopgrad.methods.siamese import Siamese
from stopgrad.nets.heads import build_predictor
from stopgrad.objective.guided import GuidedStopGradientLoss
from stopgrad.settings import SIAMESE_METHODS


class Flat(nn.Module):
    """A backbone without BatchNorm, so that views do not meet in batch statistics."""

    num_features = 8

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 4 * 4, 8)

    def forward(self, images):
        return self.linear(images.flatten(1))


@pytest.fixture
def views(generator):
    return torch.randn(2, 6, 3, 4, 4, generator=generator)


def siamese(**settings):
    torch.manual_seed(0)
    choice = SourceChoice(settings.pop("guide", "nearest_views"), settings.pop("partners", "mutual"))
    return Siamese(Flat(), nn.Linear(8, 5), build_predictor(5, 4), choice=choice, **settings)


def config(**settings):
    tiny = {"backbone": "test_resnet", "projector_width": 16, "projection_dim": 16, "predictor_width": 8}
    return Config().replace(**{**tiny, **settings})


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("guide", ["symmetric", "nearest_views", "random_views", "farthest_views"])
def test_loss_equals_the_module_on_the_same_projections(views, momentum, guide):
    method = siamese(ema_momentum=momentum, guide=guide)
    loss, _ = method(views, torch.Generator().manual_seed(5))
    z = torch.stack([method.encoder(v) for v in views], dim=1)
    p = torch.stack([method.predictor(method.encoder(v)) for v in views], dim=1)
    expected = GuidedStopGradientLoss(guide, generator=torch.Generator().manual_seed(5))(p, z)
    torch.testing.assert_close(loss, expected)


def test_the_ema_encoder_gets_no_gradient_and_is_not_trained(views):
    method = siamese(ema_momentum=0.9)
    loss, _ = method(views, torch.Generator())
    loss.backward()
    assert all(p.grad is None for p in method.target_encoder.parameters())
    trained = {id(p) for group in method.param_groups() for p in group["params"]}
    assert trained == {id(p) for p in method.parameters() if p.requires_grad}


def test_targets_come_from_the_ema_encoder(views):
    method = siamese(ema_momentum=0.9, guide="symmetric")
    before, _ = method(views, torch.Generator())
    with torch.no_grad():
        for p in method.target_encoder[1].parameters():
            p.mul_(-1)
    after, _ = method(views, torch.Generator())
    torch.testing.assert_close(after, -before)


def test_after_step_moves_the_ema_encoder():
    method = siamese(ema_momentum=0.9)
    start = method.target_encoder[1].weight.clone()
    with torch.no_grad():
        method.encoder[1].weight.add_(1.0)
    method.after_step(0.5)
    torch.testing.assert_close(method.target_encoder[1].weight, start + 0.1)


def test_momentum_that_rises_ends_at_one():
    method = siamese(ema_momentum=0.9, ema_rises=True)
    start = method.target_encoder[1].weight.clone()
    with torch.no_grad():
        method.encoder[1].weight.add_(1.0)
    method.after_step(1.0)
    torch.testing.assert_close(method.target_encoder[1].weight, start)
    method.after_step(0.0)
    torch.testing.assert_close(method.target_encoder[1].weight, start + 0.1)


def test_simsiam_has_nothing_to_do_after_a_step(views):
    method = siamese()
    before = {name: p.clone() for name, p in method.state_dict().items()}
    method.after_step(0.5)
    assert all(torch.equal(before[name], p) for name, p in method.state_dict().items())


def test_without_predictor_the_projection_is_the_prediction(views):
    torch.manual_seed(0)
    method = Siamese(Flat(), nn.Linear(8, 5), None, choice=SourceChoice("symmetric"))
    loss, _ = method(views, torch.Generator())
    z = torch.stack([method.encoder(v) for v in views], dim=1)
    torch.testing.assert_close(loss, GuidedStopGradientLoss("symmetric")(z, z))
    assert [group["name"] for group in method.param_groups()] == ["encoder"]


@pytest.mark.parametrize(("partners", "views"), [("mutual", 2), ("derangement", 4), ("permutation", 4)])
def test_generator_decides(partners, views, generator):
    method = siamese(partners=partners)
    images = torch.randn(views, 32, 3, 4, 4, generator=generator)
    losses = [method(images, torch.Generator().manual_seed(seed))[0].item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_diagnostics_only_when_watched(views):
    method = siamese()
    assert set(method(views, torch.Generator())[1]) == {"guide_balance", "guide_margin"}
    method.watch = False
    assert method(views, torch.Generator())[1] == {}


@pytest.mark.parametrize("name", SIAMESE_METHODS)
@pytest.mark.parametrize("predictor", [True, False])
@pytest.mark.parametrize("num_views", [2, 4])
def test_built_from_a_config_every_trained_weight_gets_a_gradient(name, predictor, num_views, generator):
    method = METHODS[name](config(method=name, predictor=predictor, views=num_views))
    assert (method.target_encoder is not None) == (name == "byol")
    loss, _ = method(torch.randn(num_views, 8, 3, 32, 32, generator=generator), generator)
    loss.backward()
    missing = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_heads_follow_the_config():
    method = METHODS["simsiam"](
        config(projector_layers=3, projector_width=0, projection_dim=24, predictor_width=6), None
    )
    linear = [m for m in method.encoder[1] if isinstance(m, nn.Linear)]
    dim = method.backbone.num_features
    assert [(m.in_features, m.out_features) for m in linear] == [(dim, dim), (dim, dim), (dim, 24)]
    assert method.predictor[0].out_features == 6


def test_project_gives_features_and_projections():
    method = METHODS["byol"](config()).eval()
    features, projections = method.project(torch.zeros(3, 3, 32, 32))
    assert features.shape == (3, method.backbone.num_features)
    assert projections.shape == (3, 16)


def gradients(method, loss):
    method.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("guide", ["nearest_views", "random_views", "farthest_views"])
@pytest.mark.parametrize(("num_views", "partners"), [(2, "mutual"), (4, "derangement")])
def test_source_first_is_the_same_without_batch_statistics(momentum, guide, num_views, partners, generator):
    images = torch.randn(num_views, 6, 3, 4, 4, generator=generator)
    results = []
    for source_first in (False, True):
        method = siamese(ema_momentum=momentum, guide=guide, partners=partners, source_first=source_first).eval()
        loss, diagnostics = method(images, torch.Generator().manual_seed(5))
        results.append((loss, diagnostics, gradients(method, loss)))
    (plain, plain_seen, plain_grad), (first, first_seen, first_grad) = results
    torch.testing.assert_close(plain, first)
    torch.testing.assert_close(plain_seen, first_seen)
    torch.testing.assert_close(plain_grad, first_grad)


class Counting(Flat):
    """Counts the images that pass with and without gradient."""

    def __init__(self):
        super().__init__()
        self.seen = {True: 0, False: 0}

    def forward(self, images):
        self.seen[torch.is_grad_enabled()] += len(images)
        return super().forward(images)


@pytest.mark.parametrize(("source_first", "seen"), [(False, {True: 12, False: 0}), (True, {True: 6, False: 12})])
def test_source_first_runs_the_online_encoder_on_the_sources_alone(views, source_first, seen):
    method = Siamese(Counting(), nn.Linear(8, 5), None, source_first=source_first)
    method(views, torch.Generator())
    assert method.backbone.seen == seen


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize(("num_views", "partners"), [(2, "mutual"), (4, "derangement")])
def test_one_forward_a_step_moves_batchnorms_statistics(generator, momentum, num_views, partners):
    """With source-first encoding that of the first sources; all others normalise by their batch and leave no trace."""

    def with_norm(in_dim):
        return nn.Sequential(nn.Linear(in_dim, 5), nn.BatchNorm1d(5))

    images = torch.randn(num_views, 6, 3, 4, 4, generator=generator)
    choice = SourceChoice("nearest_views", partners)
    method = Siamese(Flat(), with_norm(8), with_norm(5), ema_momentum=momentum, choice=choice, source_first=True)
    method(images, torch.Generator())
    norms = {name: module for name, module in method.named_modules() if isinstance(module, nn.BatchNorm1d)}
    moved = {name for name, norm in norms.items() if int(norm.num_batches_tracked) == 1}
    assert moved == {"encoder.1.1", "predictor.1"}
    assert all(int(norm.num_batches_tracked) in (0, 1) and norm.track_running_stats for norm in norms.values())
