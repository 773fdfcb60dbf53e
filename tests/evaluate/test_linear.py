import json

import numpy as np
import pytest
import torch
from labelled import images_of, vectors_of
from recorder import Recorder
from sklearn.linear_model import LogisticRegression

import stopgrad.evaluate.linear as linear
from stopgrad import evaluate_linear
from stopgrad.cli.main import run as run_cli
from stopgrad.cli.shared.outcome import print_outcome
from stopgrad.data.sources import Subset
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluate.shared.probe import L2_GRID, choose_l2, fit_probe, folds
from stopgrad.metrics.logistic import design_of, standard_of


def by_scikit_learn(train, test, l2):
    bank, labels = vectors_of(train)
    queries, truth = vectors_of(test)
    mean, std = bank.mean(dim=0), bank.std(dim=0, unbiased=False)
    std = torch.where(std > 0, std, 1)
    model = LogisticRegression(C=1 / l2, tol=1e-6, max_iter=5000)
    model.fit(((bank - mean) / std).double().numpy(), labels.numpy())
    return float((model.predict(((queries - mean) / std).double().numpy()) == truth.numpy()).mean())


def test_agrees_with_scikit_learn_at_the_penalty_chosen(pixels, digits):
    outcome = evaluate_linear(pixels, *digits, baselines=False)
    chosen = outcome.settings["l2"]
    assert outcome.settings["l2_chosen"]
    assert outcome.settings["converged"]
    assert outcome.accuracy == by_scikit_learn(*digits, chosen)
    assert evaluate_linear(pixels, *digits, l2=chosen, baselines=False).accuracy == outcome.accuracy
    curve = outcome.details["fit"]["trained"]["curve"]
    assert [point["l2"] for point in curve] == list(L2_GRID[: len(curve)])
    assert max(point["accuracy"] for point in curve) == next(p["accuracy"] for p in curve if p["l2"] == chosen)


def test_the_test_images_do_not_choose(pixels, digits):
    train, test = digits
    whole = evaluate_linear(pixels, train, test, baselines=False)
    part = evaluate_linear(pixels, train, Subset(test, range(10)), baselines=False)
    assert whole.details == part.details


def test_the_protocol_says_how(pixels, digits):
    outcome = evaluate_linear(pixels, *digits, baselines=False)
    for words in ("frozen features", "20% of each class of the training images", "L-BFGS, converged",
                  "280 training images", "judged by 120"):  # fmt: skip
        assert words in outcome.protocol
    fixed = evaluate_linear(pixels, *digits, l2=3.0, baselines=False)
    assert "L2 3 (1 / C);" in fixed.protocol
    assert fixed.details["fit"]["trained"]["curve"] == []
    # Penalties that were chosen do not set figures apart, those that were given do.
    assert f"L2 {outcome.settings['l2']:.3g} (1 / C; chosen" in outcome.protocol
    assert "training images; L2 (1 / C; chosen" in outcome.compared_by
    assert "converged" not in outcome.compared_by
    assert "L2 3 (1 / C);" in fixed.compared_by


def test_one_set_holds_out_a_fifth(pixels):
    outcome = evaluate_linear(pixels, images_of([0, 1, 2] * 40), baselines=False)
    assert (outcome.num_train, outcome.num_test) == (96, 24)
    assert "held out by seed 0" in outcome.protocol
    assert outcome.accuracy > 0.7


def test_mean_centred_pixels_would_be_the_same(pixels, digits):
    outcome = evaluate_linear(pixels, *digits)
    assert list(outcome.scores) == ["trained", "pixels"]


def test_a_class_of_one_image_is_learnt_still(pixels):
    train = images_of([0] * 10 + [1] * 10 + [2])
    outcome = evaluate_linear(pixels, train, images_of([0, 1, 2] * 5), baselines=False)
    assert outcome.settings["converged"]
    assert outcome.per_class.keys() == {"ant", "bee", "cat"}


def test_classes_without_images_are_never_said(pixels):
    train = images_of([0, 3] * 15, names=("a", "b", "c", "d"), spread=30, noise=10)
    test = images_of([0, 3] * 15, names=("a", "b", "c", "d"), spread=30, noise=10, seed=1)
    outcome = evaluate_linear(pixels, train, test, baselines=False)
    assert outcome.per_class.keys() == {"a", "d"}
    assert outcome.accuracy > 0.9


def test_nothing_to_choose_by(pixels):
    single = images_of([0, 1, 2])
    with pytest.raises(DataError, match=r"one training image only.*give it \(--l2\)"):
        evaluate_linear(pixels, single, images_of([0, 1]), baselines=False)
    assert evaluate_linear(pixels, single, images_of([0, 1]), l2=1.0, baselines=False).num_train == 3


@pytest.mark.parametrize("l2", [0.0, -1.0, float("nan")])
def test_bad_penalties(pixels, digits, l2):
    with pytest.raises(ConfigError, match="must be above 0"):
        evaluate_linear(pixels, *digits, l2=l2)


def test_a_fit_that_gave_up_is_told(pixels, digits, monkeypatch):
    real = fit_probe

    def giving_up(*arguments, **settings):
        from dataclasses import replace

        probe, choice = real(*arguments, **settings)
        return replace(probe, fit=replace(probe.fit, converged=False)), choice

    monkeypatch.setattr(linear, "fit_probe", giving_up)
    reporter = Recorder()
    outcome = evaluate_linear(pixels, *digits, l2=1.0, baselines=False, reporter=reporter)
    assert "has not converged" in reporter.warned[0]
    assert "NOT converged" in outcome.protocol
    assert not outcome.settings["converged"]


def test_the_protocol_is_that_of_the_headline(pixels, digits, monkeypatch):
    real, fitted = fit_probe, []

    def giving_up_on_pixels(*arguments, **settings):
        from dataclasses import replace

        probe, choice = real(*arguments, **settings)
        fitted.append(probe)
        return replace(probe, fit=replace(probe.fit, converged=len(fitted) == 1)), choice

    monkeypatch.setattr(linear, "fit_probe", giving_up_on_pixels)
    reporter = Recorder()
    outcome = evaluate_linear(pixels, *digits, l2=3.0, reporter=reporter)
    assert len(fitted) == len(outcome.scores) == 2
    assert "L-BFGS, converged" in outcome.protocol
    assert outcome.settings["converged"]
    assert not outcome.details["fit"]["pixels"]["converged"]
    assert "(pixels, L2 3) has not converged" in reporter.warned[0]


def test_a_run_keeps_it(run_folder, capsys):
    assert run_cli(["evaluate", "linear", str(run_folder), "--json", "--no-baselines", "--l2", "30"]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((run_folder / "evaluations" / "linear.json").read_text())
    assert kept.pop("when")
    assert kept == printed
    print_outcome(evaluate_linear(run_folder, l2=30.0, baselines=False))
    assert "L2 30 (1 / C)" in capsys.readouterr().out
    assert run_cli(["evaluate", "linear", str(run_folder), "--l2", "0"]) == 2


@pytest.mark.slow
def test_a_run_that_cannot_be_written_costs_a_warning_only(run_folder, capsys):
    # A file in the folder's place stops root as well, who may write into read-only folders.
    (run_folder / "evaluations").write_text("in the way")
    assert run_cli(["evaluate", "linear", str(run_folder), "--json", "--no-baselines", "--l2", "30"]) == 0
    printed = capsys.readouterr()
    assert 0 < json.loads(printed.out)["accuracy"] <= 1
    assert "warning: the outcome of linear could not be saved in" in printed.err
    assert "File exists" in printed.err
    with pytest.warns(UserWarning, match="could not be saved"):
        assert evaluate_linear(run_folder, l2=30.0, baselines=False).num_test == 360


def parts(generator, num=240, dim=12, noise=1.5):
    labels = torch.arange(num) % 4
    features = 2 * torch.eye(4, dim)[labels] + noise * torch.randn(num, dim, generator=generator)
    design = design_of(features, standard_of(features))
    return design, labels


def test_the_path_ends_when_weaker_penalties_do_not_help(generator):
    design, labels = parts(generator)
    half = [(design.rows[:60], labels[:60], design.rows[60:], labels[60:])]
    choice = choose_l2(half, design.moment, 4)
    best = max(range(len(choice.curve)), key=lambda i: choice.curve[i]["accuracy"])
    assert choice.l2 == choice.curve[best]["l2"]
    assert len(choice.curve) < len(L2_GRID)
    by_loss = choose_l2(half, design.moment, 4, by_accuracy=False)
    assert by_loss.l2 == min(by_loss.curve, key=lambda point: point["log_loss"])["l2"]


def test_folds_hold_out_every_image_once():
    labels = torch.tensor([0] * 11 + [1] * 7 + [2] * 5)
    held = torch.stack(folds(labels, 5, seed=0))
    assert (held.sum(dim=0) == 1).all()
    for label in range(3):
        counts = [int((labels[fold] == label).sum()) for fold in held]
        assert max(counts) - min(counts) <= 1


def test_seeds_repeat(pixels, digits):
    first, again = (evaluate_linear(pixels, *digits, baselines=False, seed=5).as_json() for _ in range(2))
    first.pop("seconds")
    again.pop("seconds")
    assert first == again
    assert np.isfinite(first["accuracy"])
