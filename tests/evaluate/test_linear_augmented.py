import numpy as np
import pytest
import torch
from PIL import Image
from timm.optim.lars import Lars
from torch import nn

import stopgrad
from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.data.sources import ArraySource, Subset
from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import ConfigError, DataError, NonFiniteLossError
from stopgrad.evaluate.linear_augmented import evaluate_linear_augmented
from stopgrad.evaluate.shared import crops as frozen_module
from stopgrad.evaluate.shared.crops import FrozenBackbone
from stopgrad.evaluate.shared.heads import LinearHeads
from stopgrad.evaluate.shared.holdout import draw_share, hold_out
from stopgrad.loader.labelled import LabelledViews
from stopgrad.loader.preprocess import Preprocess
from stopgrad.nets.backbones import build_backbone
from stopgrad.weights.spec import EncoderSpec

CPU = torch.device("cpu")
PLAIN = Preprocess(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
QUICK = {"epochs": 3, "batch_size": 32, "baselines": False, "precision": "fp32", "cache": "off"}


class Recorder:
    def __init__(self):
        self.warnings, self.lines = [], []

    def say(self, text):
        pass

    def warn(self, text):
        self.warnings.append(text)

    def progress(self, what, done, total, details=""):
        self.lines.append((what, done, total, details))


@pytest.fixture
def digits():
    """Some real digits to learn from, and some to test on."""
    splits = open_images("")
    return Subset(splits.train, range(200)), Subset(splits.test, range(100))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    backbone = build_backbone("resnet10_16", stem="small", image_size=8)
    spec = EncoderSpec("resnet10_16", "small", 128, 8, 8, PLAIN.mean, PLAIN.std)
    return Encoder(backbone.eval(), PLAIN, spec)


def coloured(rng, num, *, seed=0):
    """Red, green and blue images, which differ in their mean colour alone."""
    labels = np.arange(num) % 3
    pixels = rng.integers(0, 100, (num, 10, 10, 3), dtype=np.uint8)
    pixels[np.arange(num), :, :, labels] += 150
    return ArraySource(pixels, labels.tolist(), ["red", "green", "blue"])


def comparable(outcome):
    content = outcome.as_json()
    content.pop("seconds")
    content["details"].pop("images_per_second")
    return content


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_separable_features_are_told_apart(rng, optimizer):
    mean_colour = Encoder(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), PLAIN)
    outcome = evaluate_linear_augmented(
        mean_colour, coloured(rng, 90), coloured(rng, 30), optimizer=optimizer, **{**QUICK, "epochs": 15}
    )
    assert outcome.accuracy == 1
    assert outcome.num_train == 90
    assert outcome.confusions == []


def test_the_backbone_stays_as_it_is_to_the_bit(encoder, digits):
    before = {name: t.clone() for name, t in encoder.backbone.state_dict().items()}
    evaluate_linear_augmented(encoder, *digits, **QUICK)
    after = encoder.backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad and p.grad is None for p in encoder.backbone.parameters())


def test_it_is_a_function_of_the_seed(encoder, digits):
    first, again, other = (evaluate_linear_augmented(encoder, *digits, seed=s, **QUICK) for s in (0, 0, 1))
    assert comparable(first) == comparable(again)
    assert comparable(first) != comparable(other)
    assert torch.get_num_threads() >= 1


def test_features_do_not_depend_on_the_cores(encoder, digits, monkeypatch):
    config = Config().replace(image_size=8, batch_size=32)
    views = LabelledViews(load_images(digits[0], shortest=64), config, CPU)
    backbone = FrozenBackbone(encoder.backbone, CPU, "fp32", 8)
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(frozen_module, "usable_cores", lambda cores=cores: cores)
        threads = torch.get_num_threads()
        found.append([features for _, features in backbone.of_views(views, 10)])
        assert torch.get_num_threads() == threads
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_no_test_image_has_a_say_in_the_choice(encoder, digits, rng):
    train, test = digits
    noise = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    others = ArraySource(noise, [i % 10 for i in range(30)], list(train.class_names))
    a, b = (evaluate_linear_augmented(encoder, train, side, **QUICK) for side in (test, others))
    assert a.details["held_out_accuracy_by_lr"] == b.details["held_out_accuracy_by_lr"]
    assert a.details["lr"] == b.details["lr"]
    assert a.accuracy != b.accuracy


def test_one_rate_is_taken_without_a_choice(encoder, digits):
    both = evaluate_linear_augmented(encoder, *digits, lr=[0.3, 1e-6], **QUICK)
    one = evaluate_linear_augmented(encoder, *digits, lr=[both.details["lr"]["trained"]], **QUICK)
    assert one.details["held_out_accuracy_by_lr"] == {"trained": {}}
    # The head that is tested learns from all images, those held out included.
    assert one.scores == both.scores
    assert f"; lr {one.settings['lr']:g}, of 0.3, 1e-06 the best on" in both.protocol
    assert "; lr, of 0.3, 1e-06 the best on" in both.compared_by
    assert one.compared_by == one.protocol


def test_baselines_and_run_folder(encoder, digits):
    outcome = evaluate_linear_augmented(encoder, *digits, **{**QUICK, "baselines": True})
    assert list(outcome.scores) == ["trained", "untrained"]
    assert "held out" in outcome.protocol
    assert "random crops of 8% to 100%" in outcome.protocol


def test_progress_says_how_long_it_takes_yet(encoder, digits):
    reporter = Recorder()
    evaluate_linear_augmented(encoder, *digits, reporter=reporter, **QUICK)
    lines = [line for line in reporter.lines if line[0].startswith("linear heads")]
    assert lines[-1][1] == lines[-1][2]
    assert "left" in lines[0][3]
    assert "images/s" in lines[0][3]


def test_heads_trained_together_are_as_trained_alone():
    torch.manual_seed(0)
    features, labels = torch.randn(64, 5), torch.randint(0, 3, (64,))
    arguments = {"optimizer": "sgd", "weight_decay": 0.1, "seed": 0, "device": CPU}
    together = LinearHeads(5, 3, [0.1, 1e30, 0.5], **arguments)
    alone = LinearHeads(5, 3, [0.5], **arguments)
    for _ in range(20):
        together.step(features, labels, torch.ones(64, 3, dtype=torch.bool), 0.7)
        alone.step(features, labels, torch.ones(64, 1, dtype=torch.bool), 0.7)
    assert torch.allclose(together.layers[2], alone.layers[0], atol=1e-6)
    # One that diverges takes none along.
    assert together.finite() == [True, False, True]


def test_heads_learn_from_the_images_shown_to_them_alone():
    torch.manual_seed(0)
    features, labels = torch.randn(64, 5), torch.randint(0, 3, (64,))
    arguments = {"optimizer": "sgd", "weight_decay": 0.0, "seed": 0, "device": CPU}
    masked, part = (LinearHeads(5, 3, [0.5], **arguments) for _ in range(2))
    shown = torch.arange(64) < 40
    for _ in range(5):
        masked.step(features, labels, shown[:, None], 1.0)
        part.step(features[:40], labels[:40], torch.ones(40, 1, dtype=torch.bool), 1.0)
    assert torch.allclose(masked.layers[0], part.layers[0], atol=1e-6)


def test_lars_is_the_papers_formula():
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 4, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimizer = Lars([weight, bias], lr=2.0, momentum=0.9, weight_decay=0.1, trust_coeff=0.01)
    expected = [weight.detach().clone(), bias.detach().clone()]
    velocity = [torch.zeros(3, 4), torch.zeros(3)]
    for _ in range(3):
        weight.grad, bias.grad = torch.randn(3, 4), torch.randn(3)
        for i, grad in enumerate((weight.grad, bias.grad)):
            w = expected[i]
            ratio = 0.01 * w.norm() / (grad.norm() + 0.1 * w.norm()) if w.norm() > 0 else 1.0
            velocity[i] = 0.9 * velocity[i] + 2.0 * ratio * (grad + 0.1 * w)
            expected[i] = w - velocity[i]
        optimizer.step()
        assert torch.allclose(weight, expected[0], atol=1e-6)
        assert torch.allclose(bias, expected[1], atol=1e-6)


def test_the_images_held_out():
    labels = torch.tensor([0] * 50 + [1] * 10 + [2])
    held = hold_out(labels, 0.1, 0)
    assert [int(held[labels == c].sum()) for c in range(3)] == [5, 1, 0]
    assert torch.equal(held, hold_out(labels, 0.1, 0))
    assert not torch.equal(held, hold_out(labels, 0.1, 1))
    drawn = draw_share(labels, 0.01, 0)
    assert [int(drawn[labels == c].sum()) for c in range(3)] == [1, 1, 1]


def test_nothing_to_choose_by_is_told_before_training(encoder, digits, rng):
    one_each = ArraySource(rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8), [0, 1, 2], ["0", "1", "2"])
    test = ArraySource(rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), [0, 1, 2] * 2, ["0", "1", "2"])
    reporter = Recorder()
    with pytest.raises(ConfigError, match=r"one training image only.*give one"):
        evaluate_linear_augmented(encoder, one_each, test, reporter=reporter, **QUICK)
    assert not [line for line in reporter.lines if line[0].startswith("linear heads")]
    assert evaluate_linear_augmented(encoder, one_each, test, lr=[1.0], **QUICK).num_train == 3


def test_judging_in_blocks_changes_nothing(monkeypatch):
    heads = LinearHeads(6, 4, [1.0, 2.0], optimizer="sgd", weight_decay=0.0, seed=0, device=CPU)
    generator = torch.Generator().manual_seed(0)
    for layer in heads.layers:
        layer.data.normal_(generator=generator)
    features, labels = torch.randn((50, 6), generator=generator), torch.randint(4, (50,), generator=generator)
    logits = heads.logits(features).detach()
    monkeypatch.setattr("stopgrad.evaluate.shared.heads.BLOCK_BYTES", 7 * 4 * 8)
    right, losses = heads.judge(features, labels)
    assert torch.equal(right, (logits.argmax(dim=2) == labels[:, None]).double().mean(dim=0))
    assert torch.allclose(losses, heads.losses(features, labels).detach().double().mean(dim=0), atol=1e-6)
    assert torch.equal(heads.predict(features, 1), logits[:, 1].argmax(dim=1))


def test_an_unreadable_image_is_skipped_and_counted(encoder, tmp_path, rng):
    for i in range(20):
        folder = tmp_path / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9 + i, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "train" / "a" / "broken.png").write_bytes(b"no image")
    outcome = evaluate_linear_augmented(encoder, tmp_path / "train", **{**QUICK, "batch_size": 8})
    assert outcome.num_train + outcome.num_test == 20
    assert [item["name"].endswith("broken.png") for item in outcome.skipped] == [True]


def test_images_without_a_label_are_left_out_and_counted(encoder, rng):
    pixels, labels = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8), [0, 1] * 12
    quick = {**QUICK, "epochs": 1, "lr": [0.1]}
    whole, part = (
        evaluate_linear_augmented(encoder, ArraySource(pixels, given, ["a", "b"]), **quick)
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
        ({"lr": [1.0, 0.0]}, ConfigError, "lr = 0.0: must be above 0"),
        ({"lr": [float("nan")]}, ConfigError, "lr = nan: must be above 0"),
        ({"optimizer": "adam"}, ConfigError, "optimizer = 'adam' is unknown"),
        ({"precision": "fp8"}, ConfigError, "precision = 'fp8' is unknown"),
        ({"batch_size": 1}, ConfigError, "batch_size = 1: must be at least 2"),
        ({"weight_decay": -1.0}, ConfigError, "weight_decay = -1.0"),
        ({"crop_scale_min": 2.0}, ConfigError, "crop_scale_min = 2.0"),
    ],
)
def test_bad_settings(encoder, digits, change, error, message):
    with pytest.raises(error, match=message):
        evaluate_linear_augmented(encoder, *digits, **{**QUICK, **change})


def test_features_that_are_no_numbers(digits):
    nothing = Encoder(nn.Sequential(nn.Flatten(), nn.Threshold(2.0, float("nan"))), PLAIN)
    with pytest.raises(NonFiniteLossError, match=r"lr = 0\.1, 1: give smaller ones"):
        evaluate_linear_augmented(nothing, *digits, lr=[0.1, 1.0], **QUICK)


def test_bad_images(encoder, digits, rng):
    pixels = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="no labels"):
        evaluate_linear_augmented(encoder, ArraySource(pixels), digits[1], **QUICK)
    with pytest.raises(DataError, match="1 class only"):
        evaluate_linear_augmented(encoder, ArraySource(pixels, [0] * 6, ["a"]), digits[1], **QUICK)
    with pytest.raises(DataError, match="lack"):
        evaluate_linear_augmented(encoder, digits[0], ArraySource(pixels, [0] * 6, ["a"]), **QUICK)


def test_a_batch_larger_than_the_set_is_told_of(encoder, digits):
    reporter = Recorder()
    outcome = evaluate_linear_augmented(encoder, *digits, reporter=reporter, **{**QUICK, "batch_size": 4096})
    assert any("batch_size = 4096: there are only 200 images" in text for text in reporter.warnings)
    assert outcome.settings["batch_size"] == 200


def test_it_is_exported():
    assert stopgrad.evaluate_linear_augmented is evaluate_linear_augmented
