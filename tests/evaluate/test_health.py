"""Health on networks that collapsed by construction, in each of the ways there are, and on one that did not."""

import json

import pytest
import torch
from labelled import WHOLE, images_of
from torch import nn

import stopgrad
from stopgrad.cli.main import run as run_cli
from stopgrad.data.open import open_images
from stopgrad.data.sources import Subset
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.load import load_encoder, save_encoder
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluate.health import MEANINGS


class Constant(nn.Module):
    """The same point for every image, but for rounding."""

    def forward(self, images):
        return torch.ones_like(images[:, 0].flatten(1)) + 1e-4 * images[:, 0].flatten(1)


class Line(nn.Module):
    """One of two opposite directions, by how much ink there is."""

    def forward(self, images):
        ink = images[:, 0].flatten(1).sum(dim=1, keepdim=True)
        return torch.where(ink > 20, 1.0, -1.0) * torch.ones_like(images[:, 0].flatten(1))


class HalfDead(nn.Module):
    """Half of the dimensions are the image's, the others nearly constant."""

    def forward(self, images):
        pixels = images[:, 0, :, 2:6].flatten(1)
        return torch.cat([pixels, 0.3 + 1e-4 * pixels], dim=1)


@pytest.fixture(scope="module")
def images():
    return Subset(open_images("").train, range(500))


def health_of(network, images):
    return stopgrad.check(Encoder(network, WHOLE, name="mine"), images)


def test_a_healthy_encoder(pixels, images):
    health = stopgrad.check(pixels, images, num_images=300)
    assert health.state == "healthy"
    assert health.words.startswith("Healthy: standard deviation")
    assert health.measures.keys() == MEANINGS.keys()
    assert health.measures["rank_ceiling"] == 64
    assert health.num_images == 300
    assert "300 of 500 images" in health.protocol
    assert "drawn by seed 0" in health.protocol
    assert "the default augmentation" in health.protocol
    # Nobody knows how a network of the caller's own began.
    assert health.untrained is None


@pytest.mark.parametrize(
    ("network", "state", "words"),
    [
        (Constant(), "collapsed", "all images get nearly the same features"),
        (Line(), "collapsed", "all features lie on one line"),
        (HalfDead(), "partly_collapsed", "50% of the dimensions are dead"),
    ],
)
def test_collapse(images, network, state, words):
    health = health_of(network, images)
    assert health.state == state
    assert words in health.words
    # There are no flags of a run to change.
    assert "right weights" in health.words


def test_half_of_the_dimensions_are_counted(images):
    assert health_of(HalfDead(), images).measures["dead_share"] == pytest.approx(0.5, abs=0.1)


def test_beside_the_untrained_network(run_folder):
    health = stopgrad.check(run_folder, num_images=200)
    assert health.untrained.keys() == health.measures.keys()
    assert "the run's own augmentation" in health.protocol
    assert "scikit-learn's digits" in health.protocol
    assert "untrained" in health.words


def collapse(run_folder, change):
    """Change the weights of a run's encoder."""
    from stopgrad.artifacts.run_dir import RunDir

    encoder = load_encoder(run_folder)
    change(encoder.backbone)
    save_encoder(RunDir(run_folder), encoder.backbone, encoder.spec)


def test_a_run_that_collapsed_is_told_what_to_try(run_folder, capsys):
    def flatten(backbone):
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                # A thousandth of what it let through, and the rest the same for all images.
                module.weight.data.mul_(1e-3)
                module.bias.data.fill_(0.5)

    collapse(run_folder, flatten)
    health = stopgrad.check(run_folder, num_images=200)
    assert health.state == "collapsed"
    assert "--guide nearest_views" in health.words
    assert run_cli(["check", str(run_folder), "--images", "100"]) == 0
    assert "Collapsed: " in capsys.readouterr().out
    assert run_cli(["check", str(run_folder), "--images", "100", "--fail-on-collapse", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["state"] == "collapsed"
    assert "is collapsed (--fail-on-collapse)" in captured.err


@pytest.mark.slow
def test_weights_that_are_not_finite(run_folder, capsys):
    def spoil(backbone):
        next(m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)).weight.data[0] = float("nan")

    collapse(run_folder, spoil)
    health = stopgrad.check(run_folder, num_images=100)
    assert (health.state, dict(health.measures), health.untrained) == ("not_finite", {}, None)
    assert "the features of 100 of 100 images hold NaN or infinite numbers" in health.words
    assert "So does 1 of the network's" in health.words
    assert run_cli(["check", str(run_folder), "--images", "100"]) == 0
    assert "Not finite: " in capsys.readouterr().out
    assert run_cli(["check", str(run_folder), "--images", "100", "--fail-on-collapse", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["state"] == "not_finite"
    assert "is not finite (--fail-on-collapse)" in captured.err
    for arguments in (["knn"], ["linear"], ["few-label", "--labels-per-class", "2"]):
        assert run_cli(["evaluate", arguments[0], str(run_folder), *arguments[1:], "--no-baselines"]) == 1
        error = capsys.readouterr().err
        assert f"{run_folder}, trained: the features of 1,437 of 1,437 training images hold NaN" in " ".join(
            error.split()
        )


def test_some_features_overflow(images):
    class Overflowing(nn.Module):
        def forward(self, images):
            features = images[:, 0].flatten(1)
            return torch.where(features.sum(dim=1, keepdim=True) > 20, torch.inf, features)

    health = health_of(Overflowing(), images)
    assert health.state == "not_finite"
    assert "The weights are finite, so that a layer overflows" in health.words


def test_the_command(run_folder, capsys, tmp_path):
    assert run_cli(["check", str(run_folder), "--images", "100", "--fail-on-collapse"]) == 0
    output = capsys.readouterr().out
    for words in ("standard deviation", "effective rank", "dead dimensions", "untrained", "Healthy", "100 of 1,437"):
        assert words in output
    assert run_cli(["check", str(run_folder), "--images", "100", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["state"], printed["num_images"]) == ("healthy", 100)
    assert run_cli(["check", str(run_folder / "encoder.safetensors")]) == 2
    assert "no images: give DATA" in capsys.readouterr().err
    assert run_cli(["check", str(tmp_path / "none")]) == 1
    assert run_cli(["check", str(run_folder), "--images", "3"]) == 2


def test_it_follows_the_seed(pixels, images):
    def measures(seed):
        return stopgrad.check(pixels, images, num_images=100, seed=seed).measures

    assert measures(0) == measures(0) != measures(1)


def test_too_few_images(pixels):
    with pytest.raises(DataError, match="5 readable images: a check needs at least 16"):
        stopgrad.check(pixels, images_of([0] * 5))
    with pytest.raises(ConfigError, match="images = 15: must be at least 16"):
        stopgrad.check(pixels, images_of([0] * 50), num_images=15)


def test_labels_are_not_needed(pixels):
    assert stopgrad.check(pixels, images_of([-1] * 40)).state == "healthy"
