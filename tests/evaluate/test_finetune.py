import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stopgrad
from stopgrad.data.open import open_images
from stopgrad.data.sources import ArraySource, Subset
from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import ConfigError, NonFiniteLossError
from stopgrad.evaluate.finetune import evaluate_finetune
from stopgrad.loader.labelled import LabelledViews
from stopgrad.loader.preprocess import Preprocess
from stopgrad.nets.backbones import build_backbone
from stopgrad.weights.spec import EncoderSpec

PLAIN = Preprocess(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
QUICK = {"epochs": 2, "batch_size": 32, "baselines": False, "precision": "fp32", "cache": "off", "flip": False}


@pytest.fixture
def digits():
    splits = open_images("")
    return Subset(splits.train, range(300)), Subset(splits.test, range(150))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    spec = EncoderSpec("resnet10_16", "small", 128, 8, 8, PLAIN.mean, PLAIN.std)
    return Encoder(build_backbone("resnet10_16", stem="small", image_size=8).eval(), PLAIN, spec)


def weights_of(module):
    return {name: t.clone() for name, t in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("optimizer", "lr", "epochs"), [("sgd", 1.0, 5), ("adamw", 0.02, 10)])
@pytest.mark.slow
def test_it_learns_beyond_chance_and_leaves_the_encoder_alone(encoder, digits, optimizer, lr, epochs):
    before = weights_of(encoder.backbone)
    outcome = evaluate_finetune(
        encoder, *digits, optimizer=optimizer, lr=[lr], crop_scale_min=0.6, **{**QUICK, "epochs": epochs}
    )
    # Ten classes.
    assert outcome.accuracy > 0.4
    assert same(before, weights_of(encoder.backbone))


def test_the_same_network_is_trained_from_scratch_beside_it(encoder, digits):
    outcome = evaluate_finetune(encoder, *digits, **{**QUICK, "epochs": 1, "baselines": True})
    assert list(outcome.scores) == ["trained", "from_scratch"]


def test_only_the_network_computes_in_bf16(encoder, digits, monkeypatch):
    """Under autocast, crops would be resampled in bf16, or not at all."""
    made = []
    whole = LabelledViews.views

    def watched(self, batch):
        made.append(torch.is_autocast_enabled("cpu"))
        return whole(self, batch)

    monkeypatch.setattr(LabelledViews, "views", watched)
    evaluate_finetune(encoder, *digits, **{**QUICK, "epochs": 1, "precision": "bf16"})
    assert made
    assert not any(made)


@pytest.mark.slow
def test_it_is_a_function_of_the_seed(encoder, digits, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        evaluate_finetune(encoder, *digits, seed=seed, out=tmp_path / name, **QUICK)
    a, b, c = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.slow
def test_what_is_saved_classifies_as_it_was_tested(encoder, digits, tmp_path):
    outcome = evaluate_finetune(encoder, *digits, out=tmp_path / "tuned", **QUICK)
    from safetensors.torch import load_file

    tuned = stopgrad.load_encoder(tmp_path / "tuned")
    head = load_file(tmp_path / "tuned" / "head.safetensors")
    logits = F.linear(tuned.embed(digits[1]), head["weight"], head["bias"])
    truth = torch.tensor([digits[1].label(i) for i in range(150)])
    assert float((logits.argmax(dim=1) == truth).float().mean()) == pytest.approx(outcome.accuracy)
    assert json.loads((tmp_path / "tuned" / "head.json").read_text())["class_names"] == list(digits[0].class_names)
    with pytest.raises(ConfigError, match="already: use --overwrite"):
        evaluate_finetune(encoder, *digits, out=tmp_path / "tuned", **QUICK)
    evaluate_finetune(encoder, *digits, out=tmp_path / "tuned", overwrite=True, **QUICK)


def test_few_labels(encoder, digits):
    outcome = evaluate_finetune(encoder, *digits, labels=0.1, **QUICK)
    assert 25 <= outcome.num_train <= 35
    assert "0.1 of each class's" in outcome.protocol
    assert evaluate_finetune(encoder, *digits, labels=1e-6, **QUICK).num_train == 10


@pytest.mark.slow
def test_of_several_rates_the_best_is_chosen_and_one_that_diverges_is_not(encoder, digits):
    with pytest.warns(UserWarning, match="no longer finite"):
        outcome = evaluate_finetune(encoder, *digits, lr=[1e30, 0.1, 1e-7], **QUICK)
    assert outcome.details["lr"] == {"trained": 0.1}
    assert set(outcome.details["held_out_accuracy_by_lr"]["trained"]) == {"0.1", "1e-07"}
    assert "; lr 0.1, of 1e+30, 0.1, 1e-07 the best on" in outcome.protocol
    assert "; lr, of 1e+30, 0.1, 1e-07 the best on" in outcome.compared_by


def test_nothing_to_choose_a_rate_by_is_told_before_training(encoder, digits, monkeypatch):
    monkeypatch.setattr("stopgrad.evaluate.finetune.tune", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(ConfigError, match="2 rates to choose among, but every class has one training image only"):
        evaluate_finetune(encoder, *digits, labels=1e-6, lr=[0.1, 0.3], **QUICK)


def test_no_second_copy_of_the_images_is_made_to_know_the_batch_size(encoder, digits, monkeypatch):
    made = []
    begin = LabelledViews.__init__
    monkeypatch.setattr(LabelledViews, "__init__", lambda self, *given: made.append(1) or begin(self, *given))
    assert evaluate_finetune(encoder, *digits, **{**QUICK, "epochs": 1}).settings["batch_size"] == 30
    assert len(made) == 1


def test_the_head_has_a_rate_of_its_own(encoder, digits):
    settings = evaluate_finetune(encoder, *digits, lr=[0.01], head_lr=0.5, **QUICK).settings
    assert (settings["lr"], settings["head_lr"]) == (0.01, 0.5)


def test_a_network_of_ones_own(digits, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU())
    outcome = evaluate_finetune(Encoder(network, PLAIN), *digits, **{**QUICK, "baselines": True})
    assert list(outcome.scores) == ["trained"]
    with pytest.raises(ConfigError, match="a network of your own"):
        evaluate_finetune(Encoder(network, PLAIN), *digits, out=tmp_path / "x", **QUICK)


def test_images_without_a_label_are_left_out_and_counted(encoder, rng):
    pixels, labels = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8), [0, 1] * 12
    quick = {**QUICK, "epochs": 1, "lr": [0.1]}
    whole, part = (
        evaluate_finetune(encoder, ArraySource(pixels, given, ["a", "b"]), **quick)
        for given in (labels, [-1] * 3 + labels[3:])
    )
    assert (part.num_train + part.num_test, part.settings["num_unlabelled"]) == (21, 3)
    assert all("; 3 images without a label left out; " in words for words in (part.protocol, part.compared_by))
    assert (whole.num_train + whole.num_test, whole.settings["num_unlabelled"]) == (24, 0)
    assert "without a label" not in whole.protocol


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epochs": 0}, ConfigError, "epochs = 0: must be at least 1"),
        ({"lr": [-1.0]}, ConfigError, "lr = -1.0: must be above 0"),
        ({"head_lr": 0.0}, ConfigError, "head_lr = 0.0: must be above 0"),
        ({"optimizer": "lars"}, ConfigError, "optimizer = 'lars' is unknown"),
        ({"label_smoothing": 1.0}, ConfigError, "label_smoothing = 1.0"),
        ({"warmup_epochs": 2.0}, ConfigError, "warmup_epochs = 2.0"),
        ({"labels": 0.0}, ConfigError, "labels = 0.0"),
        ({"precision": "fp8"}, ConfigError, "precision = 'fp8' is unknown"),
        ({"lr": [1e30]}, NonFiniteLossError, "with lr = 1e[+]30"),
    ],
)
def test_bad_settings(encoder, digits, change, error, message):
    with pytest.raises(error, match=message):
        evaluate_finetune(encoder, *digits, **{**QUICK, **change})
