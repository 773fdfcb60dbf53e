"""The examples run, train the backbone, and let no gradient reach a target."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

import stopgrad

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(monkeypatch):
    """Each call of the loss: the targets it was given, made to keep what gradient reaches them, and the loss."""
    found = []
    forward = stopgrad.GuidedStopGradientLoss.forward

    def watched(self, prediction, target, partners=None):
        if target.requires_grad:
            target.retain_grad()
        loss = forward(self, prediction, target, partners)
        found.append((prediction, target, loss))
        return loss

    monkeypatch.setattr(stopgrad.GuidedStopGradientLoss, "forward", watched)
    return found


@pytest.fixture
def first_convolution(monkeypatch):
    """The first weights of the backbone as it is built, and themselves as they are trained."""
    kept = {}

    def watch(owner, name):
        build = getattr(owner, name)

        def building(*arguments, **options):
            backbone = build(*arguments, **options)
            kept["before"], kept["weight"] = backbone.conv1.weight.detach().clone(), backbone.conv1.weight
            return backbone

        monkeypatch.setattr(owner, name, building)
        return kept

    return watch


def check(calls, weights, num_steps, num_views):
    assert len(calls) == num_steps
    for prediction, target, loss in calls:
        assert prediction.shape == target.shape == (8, num_views, target.shape[2])
        assert math.isfinite(loss.item())
        assert prediction.requires_grad
        assert target.grad is None
    assert not torch.equal(weights["before"], weights["weight"])


@pytest.mark.parametrize("num_views", [2, 4])
@pytest.mark.slow
def test_the_plain_loop(calls, first_convolution, num_views):
    pytest.importorskip("torchvision")
    module = example("plain_loop")
    weights = first_convolution(module, "resnet18")
    backbone, losses = module.train(num_steps=2, num_views=num_views, batch_size=8)
    check(calls, weights, 2, num_views)
    assert losses == [loss.item() for _, _, loss in calls]
    assert weights["weight"] is backbone.conv1.weight


@pytest.mark.filterwarnings("ignore")  # Lightning warns of its own parts, and of few workers.
@pytest.mark.parametrize("num_views", [2, 4])
def test_the_lightning_loop(calls, first_convolution, num_views, tmp_path, monkeypatch):
    pytest.importorskip("torchvision")
    if not (importlib.util.find_spec("lightning") or importlib.util.find_spec("pytorch_lightning")):
        pytest.skip("neither lightning nor pytorch_lightning is here")
    monkeypatch.chdir(tmp_path)
    module = example("lightning_loop")
    weights = first_convolution(module.timm, "create_model")
    model = module.train(num_steps=2, num_views=num_views, batch_size=8)
    check(calls, weights, 2, num_views)
    assert model.global_step == 2
    assert model.trainer.callback_metrics["loss"].item() == pytest.approx(calls[-1][2].item())
    assert list(tmp_path.iterdir()) == []


def test_the_lightly_loop(calls, first_convolution):
    pytest.importorskip("lightly")
    module = example("lightly_loop")
    weights = first_convolution(module, "resnet18")
    model, losses = module.train(num_steps=2, batch_size=8)
    check(calls, weights, 2, 2)
    assert losses == [loss.item() for _, _, loss in calls]
    # Targets are the moving average's: it takes no gradient, and follows slowly.
    assert all(parameter.grad is None for parameter in model.target.parameters())
    target = model.target[0].conv1.weight
    moved, gone = (target - weights["before"]).norm(), (weights["weight"] - weights["before"]).norm()
    assert 0 < moved < 0.05 * gone


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_importing_an_example_runs_nothing(name, calls, monkeypatch, capsys):
    for package in ("lightly", "torchvision"):
        pytest.importorskip(package)
    if name == "lightning_loop" and not importlib.util.find_spec("lightning"):
        pytest.importorskip("pytorch_lightning")
    assert callable(example(name).main)
    assert capsys.readouterr().out == ""
    assert calls == []
