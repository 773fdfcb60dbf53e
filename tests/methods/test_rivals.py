"""The methods to compare with, and targets of several views."""

import pytest
import torch
from torch import nn

from stopgrad.config import Config
from stopgrad.errors import ConfigError
from stopgrad.methods import METHODS
from stopgrad.methods.choice import SourceChoice
from stopgrad.methods.moco import MoCo
from stopgrad.methods.siamese import Siamese
from stopgrad.objective.contrastive import nt_xent

RIVALS = ("simclr", "moco", "barlow_twins", "vicreg", "dino")
TINY = {"backbone": "test_resnet", "projector_width": 16, "projection_dim": 16, "predictor_width": 8, "queue_size": 20}


def built(**settings):
    torch.manual_seed(0)
    return METHODS[settings["method"]](Config().replace(**TINY, **settings))


@pytest.mark.parametrize("num_views", [2, 4])
@pytest.mark.parametrize("norm", ["all", "hidden", "none"])
@pytest.mark.parametrize("name", RIVALS)
def test_every_trained_weight_gets_a_gradient(name, norm, num_views, generator):
    method = built(method=name, views=num_views, projector_norm=norm)
    loss, _ = method(torch.randn(num_views, 8, 3, 32, 32, generator=generator), generator)
    loss.backward()
    assert torch.isfinite(loss)
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []


def test_simclr_is_nt_xent_of_the_projections(generator):
    method = built(method="simclr", temperature=0.4).eval()
    views = torch.randn(2, 8, 3, 32, 32, generator=generator)
    loss, _ = method(views, generator)
    first, second = (method.project(view)[1] for view in views)
    torch.testing.assert_close(loss, nt_xent(first, second, temperature=0.4))


class TestMoCo:
    @pytest.fixture
    def method(self):
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(48, 6))
        return MoCo(backbone, nn.Linear(6, 5), ema_momentum=0.9, queue_size=10, temperature=0.2, dim=5)

    def test_the_oldest_leave_the_queue(self, method, generator):
        before = method.queue.clone()
        images = torch.randn(2, 2, 3, 4, 4, generator=generator)
        method(images, generator)
        assert torch.equal(method.queue[4:], before[4:])
        targets = [nn.functional.normalize(method.target_encoder(view), dim=1) for view in images]
        torch.testing.assert_close(method.queue[:4], torch.cat(targets))
        for _ in range(2):
            method(images, generator)
        assert int(method.place) == 2

    def test_a_batch_larger_than_the_queue(self, method, generator):
        method(torch.randn(2, 9, 3, 4, 4, generator=generator), generator)
        torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(10))

    def test_the_queue_is_part_of_the_state(self, method):
        assert {"queue", "place"} <= set(method.state_dict())

    def test_in_eval_mode_nothing_is_remembered(self, method, generator):
        before = method.queue.clone()
        method.eval()(torch.randn(2, 4, 3, 4, 4, generator=generator), generator)
        assert torch.equal(method.queue, before)


class TestDINO:
    @pytest.fixture
    def method(self):
        return built(method="dino", prototypes=12, ema_momentum=0.9, ema_schedule="cosine")

    def test_each_view_predicts_the_teacher_s_assignment_of_the_other(self, method, generator):
        views = torch.randn(2, 6, 3, 32, 32, generator=generator)
        method.eval().centre = torch.randn(12, generator=generator) / 10
        loss, _ = method(views, generator)
        student = [method.encoder(view) / 0.1 for view in views]
        teacher = [((method.target_encoder(view) - method.centre) / 0.04).softmax(dim=1) for view in views]
        terms = [-(teacher[1 - v] * student[v].log_softmax(dim=1)).sum(dim=1).mean() for v in range(2)]
        torch.testing.assert_close(loss, torch.stack(terms).mean())

    def test_the_centre_follows_the_teacher_while_training(self, method, generator):
        views = torch.randn(2, 6, 3, 32, 32, generator=generator)
        method.eval()(views, generator)
        assert not method.centre.any()
        method.train()(views, generator)
        logits = torch.cat([method.target_encoder(view) for view in views])
        torch.testing.assert_close(method.centre, 0.1 * logits.mean(dim=0))
        assert "centre" in method.state_dict()

    def test_the_teacher_moves_less_and_less(self, method, generator):
        torch.nn.init.zeros_(method.encoder[2].weight)
        before = method.target_encoder[2].weight.clone()
        method.after_step(1.0)
        assert torch.equal(method.target_encoder[2].weight, before)
        method.after_step(0.0)
        torch.testing.assert_close(method.target_encoder[2].weight, 0.9 * before)


class Plain(nn.Module):
    num_features = 8

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, 8)

    def forward(self, images):
        return self.linear(images.flatten(1))


def siamese(**settings):
    torch.manual_seed(0)
    choice = SourceChoice(settings.pop("guide"), settings.pop("partners", "mutual"), **settings.pop("options", {}))
    return Siamese(Plain(), nn.Linear(8, 5), nn.Linear(5, 5), choice=choice, **settings)


@pytest.mark.parametrize("guide", ["nearest_views", "random_views"])
@pytest.mark.parametrize("targets", ["other", "mean_of_others"])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_source_first_is_the_same_without_batchnorm(guide, targets, momentum, generator):
    views = torch.randn(4, 6, 3, 4, 4, generator=generator)
    losses, gradients = [], []
    for source_first in (False, True):
        method = siamese(
            guide=guide, targets=targets, ema_momentum=momentum, source_first=source_first, partners="derangement"
        )
        loss, _ = method(views, torch.Generator().manual_seed(3))
        loss.backward()
        losses.append(loss)
        gradients.append(method.encoder[0].linear.weight.grad)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_all_sources_and_the_mean_of_others_is_fastsiam(generator):
    views = torch.randn(4, 6, 3, 4, 4, generator=generator)
    method = siamese(guide="symmetric", targets="mean_of_others")
    loss, _ = method(views, generator)
    z = [method.encoder(view) for view in views]
    terms = []
    for v in range(4):
        target = torch.stack([z[u] for u in range(4) if u != v]).mean(dim=0)
        terms.append(-nn.functional.cosine_similarity(method.predictor(z[v]), target, dim=1).mean())
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_source_first_of_the_most_decided_is_the_same_without_batchnorm(generator):
    views = torch.randn(2, 8, 3, 4, 4, generator=generator)
    losses = []
    for source_first in (False, True):
        method = siamese(guide="nearest_views", ema_momentum=0.9, source_first=source_first, options={"keep": 0.5})
        losses.append(method(views, torch.Generator().manual_seed(3))[0])
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("source_first", [True, False])
@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize(("guide", "keep_by"), [("nearest_views", "decided"), ("random_views", "random")])
def test_half_of_the_images_gives_a_gradient(guide, keep_by, views, source_first, generator):
    method = built(method="byol", guide=guide, source_first=source_first, views=views, guide_keep=0.5,
                   guide_keep_by=keep_by)  # fmt: skip
    loss, _ = method(torch.randn(views, 8, 3, 32, 32, generator=generator), generator)
    loss.backward()
    assert torch.isfinite(loss)
    weights, _ = method.choice(torch.randn(8, views, 16, generator=generator), generator)
    assert int((weights.sum(dim=1) > 0).sum()) == 4
    assert float(weights.sum(dim=1).mean()) == pytest.approx(1.0)


def test_a_guide_that_ranks_no_views_is_told():
    for guide in ("random_views", "farthest_views", "my_guides:mine"):
        with pytest.raises(ConfigError, match="ranks no views"):
            Config().replace(guide=guide, guide_keep=0.5)


@pytest.mark.parametrize(("num_images", "groups"), [(2, 1), (4, 2), (32, 2), (96, 3)])
def test_moco_s_targets_are_shuffled_among_groups_at_small_batches_too(num_images, groups, generator):
    method = built(method="moco", projector_norm="none")
    calls = []
    method.target_encoder.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    method(torch.randn(2, num_images, 3, 32, 32, generator=generator), generator)
    assert calls == [num_images // groups] * 2 * groups
