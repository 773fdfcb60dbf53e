"""Monitors and the verdict, on networks that collapsed in the two ways there are and on one that did not."""

import pytest
import torch
from torch import nn

from stopgrad.cache.store import load_images
from stopgrad.data.open import open_images
from stopgrad.distributed.rank import Rank
from stopgrad.encoder.features import settle_batchnorm
from stopgrad.loader.loader import Loader
from stopgrad.methods.siamese import Siamese
from stopgrad.metrics.paired import compare_paired
from stopgrad.metrics.verdict import START, Kept, find_collapse, judge
from stopgrad.nets.heads import build_predictor, build_projector
from stopgrad.recipes import RECIPES
from stopgrad.train.monitor import KnnProtocol, LabelledFeatures, Monitor


class Pixels(nn.Module):
    """Features that are the pixels themselves: healthy, and good at digits."""

    num_features = 3 * 8 * 8

    def forward(self, images):
        return images.flatten(1)


class Constant(Pixels):
    """The same point for every image, but for rounding."""

    def forward(self, images):
        return torch.ones_like(images.flatten(1)) + 1e-4 * images.flatten(1)


class TwoPoints(Pixels):
    """One of two opposite points, by how much ink there is: spread out, and of rank one."""

    def forward(self, images):
        ink = images.flatten(1).sum(dim=1, keepdim=True)
        return torch.where(ink > ink.median(), 1.0, -1.0) * torch.ones_like(images.flatten(1))


@pytest.fixture(scope="module")
def monitor():
    config = RECIPES["digits"]().replace(image_size=8, monitor_images=600, knn_k=20)
    store = load_images(open_images("").train, shortest=64)
    return Monitor(store, Loader(store, config, Rank()), config, torch.device("cpu"))


def siamese(backbone):
    torch.manual_seed(0)
    return Siamese(backbone, build_projector(192, 32, 16, 2), build_predictor(16, 8))


@pytest.fixture(scope="module")
def healthy(monitor):
    method = siamese(Pixels())
    settle_batchnorm(method, method.project, monitor.store, monitor.preprocess, monitor.device)
    return monitor.measure(method)


def test_a_healthy_network(monitor, healthy):
    assert healthy["feature_std"] > 0.3
    assert healthy["effective_rank"] > 10
    assert healthy["rank_ceiling"] == 192
    assert healthy["knn_top1"] > 0.9
    assert (healthy["knn_k"], healthy["knn_temperature"]) == (20, 0.2)
    assert find_collapse(healthy, healthy) is None


def test_a_constant(monitor, healthy):
    now = monitor.measure(siamese(Constant()))
    verdict = find_collapse(now, healthy)
    assert verdict.state == "collapsed"
    assert "nearly the same features" in verdict.words
    assert "--guide nearest_views" in verdict.words


def test_a_rank_one_collapse(monitor, healthy):
    now = monitor.measure(siamese(TwoPoints()))
    # The standard deviation alone would call this the healthiest of all.
    assert now["feature_std"] > healthy["feature_std"]
    verdict = find_collapse(now, healthy)
    assert verdict.state == "collapsed"
    assert "on one line (the effective rank of the features is 1.0" in verdict.words


@pytest.mark.parametrize("backbone", [Constant(), TwoPoints()])
def test_collapsed_projections_of_healthy_features(monitor, healthy, backbone):
    method = siamese(Pixels())
    method.encoder[1] = backbone
    verdict = find_collapse(monitor.measure(method), healthy)
    assert verdict.state == "collapsed"
    assert "projections" in verdict.words


def test_measuring_leaves_the_network_as_it_was(monitor):
    method = siamese(Pixels()).train()
    before = {name: t.clone() for name, t in method.state_dict().items()}
    first, second = monitor.measure(method), monitor.measure(method)
    assert first == second
    assert method.training
    assert all(torch.equal(before[name], t) for name, t in method.state_dict().items())


def test_rounding_is_not_taken_for_rank(monitor):
    """Of projections on a plane, whatever the run computes in; the backbone computes in that."""
    seen = []

    class Watched(Pixels):
        def forward(self, images):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(images)

    method = siamese(Watched())
    plane = nn.Linear(192, 64)
    with torch.no_grad():
        plane.weight.copy_(torch.randn(64, 2) @ torch.randn(2, 192))
    method.encoder[1] = plane
    config = RECIPES["digits"]().replace(image_size=8, monitor_images=600, knn_k=20, precision="bf16")
    half = Monitor(monitor.store, monitor.loader, config, monitor.device)
    ranks = []
    for watching in (monitor, half):
        seen.clear()
        watching.precision = "fp32" if watching is monitor else watching.precision
        ranks.append(watching.measure(method)["projection_effective_rank"])
        assert set(seen) == {watching is half}
    assert ranks[0] < 3
    assert ranks[1] == pytest.approx(ranks[0], abs=0.01)


def test_settling_gives_batchnorm_the_statistics_of_the_images(monitor):
    method = siamese(Pixels())
    settle_batchnorm(method, method.project, monitor.store, monitor.preprocess, monitor.device)
    projector = method.encoder[1]
    images = monitor.preprocess.batch(monitor.store.stacked)
    hidden = projector[0](images.flatten(1))
    # Batches count alike, the short last one too.
    torch.testing.assert_close(projector[1].running_mean, hidden.mean(dim=0), rtol=0, atol=0.1 * float(hidden.std()))


def labelled(generator, per_class, dim=8):
    labels = torch.arange(4).repeat_interleave(per_class)
    features = 3 * torch.eye(4, dim)[labels] + torch.randn(len(labels), dim, generator=generator)
    return LabelledFeatures(features, labels)


def test_few_labels_are_drawn_evenly_and_by_the_seed(generator):
    bank, queries = labelled(generator, 50), labelled(generator, 50)
    knn = KnnProtocol(k=8, temperature=0.2, num_classes=4)
    mean, std = knn.few_label_accuracy(bank, queries, per_class=5, num_draws=6, seed=0)
    again = knn.few_label_accuracy(bank, queries, per_class=5, num_draws=6, seed=0)
    other = knn.few_label_accuracy(bank, queries, per_class=5, num_draws=6, seed=1)
    assert (mean, std) == again != other
    assert 0.25 < mean <= knn.accuracy(bank, queries) + 2 * std
    assert std > 0


HEALTH = {"feature_std": 0.5, "effective_rank": 50.0, "projection_std": 1.0, "projection_effective_rank": 60.0,
          "relative_alignment": 0.2, "rank_ceiling": 255.0}  # fmt: skip
UNTRAINED = {**HEALTH, "relative_alignment": 0.8}


def scores(trained, before=0.3, pixels=0.4, key="untrained"):
    return {"trained": trained, key: before, "pixels": pixels, "pixels_centred": pixels - 0.1}


def paired(trained, before, num=1000):
    """A tenth of the images changes sides beside what makes the difference."""
    noise = num // 20
    gained, lost = (noise + max(0, round(sign * num * (trained - before))) for sign in (1, -1))
    now = torch.tensor([True] * gained + [False] * (num - gained))
    then = torch.tensor([False] * gained + [True] * lost + [False] * (num - gained - lost))
    return compare_paired(now, then)


@pytest.mark.parametrize(
    ("now", "table", "state", "words"),
    [
        ({}, scores(0.6), "learnt", "Learnt: k-NN 60.0%, untrained 30.0% (+30.0 points, "),
        ({}, scores(0.38), "learnt", "Learnt, but raw pixels do better"),
        ({}, scores(0.31), "not_learnt", "no better than chance explains"),
        ({}, scores(0.2), "not_learnt", "Not learnt"),
        ({}, {}, "healthy", "Not collapsed, and it learnt to tell images apart"),
        ({"relative_alignment": 0.75}, {}, "not_learnt", "learnt little"),
        ({"feature_std": 0.01}, scores(0.6), "collapsed", "nearly the same features"),
        ({"effective_rank": 1.2}, {}, "collapsed", "on one line"),
        (
            {"projection_std": 0.3},
            scores(0.5),
            "partly_collapsed",
            "the standard deviation of the projections is 0.3, untrained 1",
        ),
        ({"projection_effective_rank": 3.0}, scores(0.5), "partly_collapsed", "effective rank of the projections"),
    ],
)
def test_the_verdict_in_words(now, table, state, words):
    pair = paired(table["trained"], table["untrained"]) if table else None
    verdict = judge({**HEALTH, **now}, UNTRAINED, table, pair)
    assert verdict.state == state
    assert words in verdict.words


@pytest.mark.parametrize(
    ("trained", "state", "words"),
    [
        (0.95, "learnt", "Better than it started: k-NN 95.0%, as it started 90.0% (+5.0 points"),
        (0.91, "not_learnt", "No significant difference: k-NN 91.0%, as it started 90.0% (+1.0 points"),
        (0.85, "worse", "Worse than it started: k-NN 85.0%, as it started 90.0% (-5.0 points"),
    ],
)
def test_the_verdict_beside_a_start_with_weights(trained, state, words):
    table = scores(trained, 0.9, 0.5, key="start")
    verdict = judge(HEALTH, HEALTH, table, paired(trained, 0.9), before_is=START)
    assert verdict.state == state
    assert words in verdict.words
    assert "untrained" not in verdict.words


def test_the_verdict_says_what_was_kept():
    table = scores(0.85, 0.9, 0.5, key="start")
    start, best = (Kept(step, 100, "k-NN of 200 training images", score, 0.8) for step, score in ((0, 0.8), (40, 0.9)))
    kept = judge(HEALTH, HEALTH, table, paired(0.85, 0.9), before_is=START, kept=start)
    assert kept.state == "kept_start"
    assert kept.words.startswith("Kept as it started: nothing measured on the way was better by k-NN of 200")
    assert "k-NN 90.0%; trained 85.0% (-5.0 points" in kept.words
    better = judge(HEALTH, HEALTH, scores(0.95, 0.9, key="start"), paired(0.95, 0.9), before_is=START, kept=best)
    assert better.words.endswith("Kept from step 40 of 100: 90.0% by k-NN of 200 training images, as it started 80.0%.")
