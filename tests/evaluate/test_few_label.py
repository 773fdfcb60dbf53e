import json

import pytest
import torch
from labelled import images_of, knn_by_hand, vectors_of

from stopgrad import evaluate_few_label
from stopgrad.cli.main import run as run_cli
from stopgrad.cli.shared.outcome import print_outcome
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluate.few_label import draw_labels
from stopgrad.evaluate.shared.outcome import score_of


def test_draws_are_balanced_and_follow_the_seed():
    labels = torch.tensor([0] * 20 + [1] * 12 + [2] * 3)
    drawn = draw_labels(labels, 5, seed=0)
    assert labels[drawn].bincount().tolist() == [5, 5, 3]
    assert torch.equal(drawn, draw_labels(labels, 5, seed=0))
    assert not torch.equal(drawn, draw_labels(labels, 5, seed=1))
    assert len(drawn.unique()) == 13


@pytest.mark.slow
def test_one_and_ten_percent(pixels, digits):
    outcome = evaluate_few_label(pixels, *digits, draws=3, baselines=False)
    found = outcome.details["by_labels"]["trained"]
    assert list(found) == ["1%", "10%"]
    # 280 images of ten classes: 1% is less than one label a class, which the protocol says.
    assert "1% (1 a class, 10 in all), 10% (3 a class, 30 in all)" in outcome.protocol
    assert "1%: fixed at 1, 10%: 3 folds" in outcome.protocol
    assert "3 draws, seeds 0 to 2" in outcome.protocol
    assert "; intervals over draws;" in outcome.protocol
    assert outcome.settings["draw_seeds"] == [0, 1, 2]
    assert outcome.accuracy == found["1%"]["linear"]["accuracy"]
    assert found["10%"]["linear"]["accuracy"] > found["1%"]["linear"]["accuracy"] > 0.2
    assert all(found[name][kind]["std"] >= 0 for name in found for kind in ("linear", "knn"))
    assert found["10%"]["linear"]["low"] < found["10%"]["linear"]["accuracy"] < found["10%"]["linear"]["high"]
    assert len(found["10%"]["l2"]) == 3
    assert outcome.num_test == 120


@pytest.mark.slow
def test_knn_beside_is_that_of_the_drawn_labels(pixels, digits):
    train, test = digits
    outcome = evaluate_few_label(pixels, train, test, labels_per_class=4, draws=2, baselines=False)
    bank, labels = vectors_of(train)
    queries, truth = vectors_of(test)
    expected = []
    for seed in (0, 1):
        drawn = draw_labels(labels, 4, seed)
        predicted = knn_by_hand(bank[drawn], labels[drawn], queries, 4, 0.1)
        expected.append(float((predicted == truth).double().mean()))
    assert outcome.details["by_labels"]["trained"]["4 a class"]["knn"]["accuracy"] == pytest.approx(sum(expected) / 2)


@pytest.mark.slow
def test_several_numbers_and_baselines(pixels, digits):
    outcome = evaluate_few_label(pixels, *digits, labels_per_class=(2, 1), percent=(5,), draws=2)
    assert list(outcome.scores) == ["trained", "pixels", "pixels_centred"]
    for found in outcome.details["by_labels"].values():
        assert list(found) == ["5%", "2 a class", "1 a class"]
    pixels_found, centred = (outcome.details["by_labels"][name] for name in ("pixels", "pixels_centred"))
    # Standardised, the centre makes no difference; to a cosine it does.
    assert all(pixels_found[name]["linear"] == centred[name]["linear"] for name in centred)
    assert any(pixels_found[name]["knn"] != centred[name]["knn"] for name in centred)


def test_a_class_with_too_few_images(pixels):
    train, test = images_of([0] * 40 + [1] * 40 + [2] * 3), images_of([0, 1, 2] * 4)
    with pytest.raises(DataError, match=r"labels_per_class = 5: class 'cat' has only 3 training images"):
        evaluate_few_label(pixels, train, test, labels_per_class=5)
    # Of one set only a fifth of each class tests, so that a class of 3 has 2 to train with: the message says so.
    with pytest.raises(DataError, match=r"only 2 training images \(test images: 20% of each class of .*, held out by"):
        evaluate_few_label(pixels, train, labels_per_class=3)
    outcome = evaluate_few_label(pixels, train, test, percent=20, draws=2, baselines=False)
    assert "20% (6 a class, 15 in all; 1 class has fewer and gives all)" in outcome.protocol
    assert "20%: 3 folds" in outcome.protocol


def test_all_the_labels(pixels):
    outcome = evaluate_few_label(
        pixels, images_of([0, 1] * 60), images_of([0, 1] * 20, seed=1), percent=100, draws=2, baselines=False
    )
    found = outcome.scores["trained"]
    assert found.std == 0
    # Draws that are all alike tell nothing of how sure the figure is; the number of test images does.
    wilson = score_of(round(40 * found.accuracy), 40)
    assert (found.low, found.high) == (pytest.approx(wilson.low), pytest.approx(wilson.high))
    assert found.high - found.low > 0.05
    knn = outcome.details["by_labels"]["trained"]["100%"]["knn"]
    assert knn["low"] < knn["high"]
    assert "100%: a fifth held out" in outcome.protocol
    assert "for 100%, where every draw is all the labels, intervals over test images (Wilson)" in outcome.protocol
    assert "intervals over draws" not in outcome.protocol


@pytest.mark.slow
def test_all_the_labels_of_classes_that_differ_in_size(pixels):
    train, test = images_of([0] * 30 + [1] * 20), images_of([0, 1] * 20, seed=1)
    outcome = evaluate_few_label(pixels, train, test, percent=100, draws=2, baselines=False)
    assert "100% (30 a class, 50 in all; 1 class has fewer and gives all)" in outcome.protocol
    assert outcome.scores["trained"].high > outcome.scores["trained"].low
    assert outcome.settings["amounts"][0]["is_all"]


def test_one_set_holds_out_a_fifth(pixels):
    outcome = evaluate_few_label(pixels, images_of([0, 1, 2] * 20), labels_per_class=1, draws=2, baselines=False)
    assert (outcome.num_train, outcome.num_test) == (48, 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"percent": 0}, "percent = 0: must be above 0"),
        ({"percent": (1, 101)}, "percent = 101"),
        ({"labels_per_class": 0}, "labels_per_class = 0: must be at least 1"),
        ({"draws": 1}, "draws = 1: a standard deviation needs at least 2"),
    ],
)
def test_bad_arguments(pixels, digits, settings, message):
    with pytest.raises(ConfigError, match=message):
        evaluate_few_label(pixels, *digits, **settings)


@pytest.mark.slow
def test_a_run_keeps_it_and_the_command_prints_it(run_folder, pixels, digits, capsys):
    arguments = ["evaluate", "few-label", str(run_folder), "--no-baselines", "--labels-per-class", "1", "2"]
    assert run_cli([*arguments, "--draws", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((run_folder / "evaluations" / "few-label.json").read_text())
    assert kept.pop("when")
    assert kept == printed
    print_outcome(evaluate_few_label(pixels, *digits, labels_per_class=(1, 2), draws=2))
    output = capsys.readouterr().out
    for words in ("1 a class", "2 a class", "95% interval", "k-NN", "±", "seeds 0 to 1"):
        assert words in output
    assert "…" not in output
