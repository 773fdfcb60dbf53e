import json
import re
import weakref

import pytest
import torch
from labelled import images_of, knn_by_hand, vectors_of

from stopgrad import evaluate_knn
from stopgrad.cli.main import run as run_cli
from stopgrad.errors import ConfigError
from stopgrad.evaluate.shared import baselines
from stopgrad.evaluate.shared.outcome import score_of


def test_one_set_is_leave_one_out(pixels, digits):
    train, _ = digits
    outcome = evaluate_knn(pixels, train, k=(1, 5, 20), temperature=0.1, baselines=False)
    assert outcome.settings["leave_one_out"]
    assert "leave-one-out" in outcome.protocol
    vectors, labels = vectors_of(train)
    for k in (1, 5, 20):
        predicted = knn_by_hand(vectors, labels, vectors, k, 0.1, leave_out=True)
        expected = float((predicted == labels).double().mean())
        assert outcome.details["by_k"]["trained"][str(k)] == pytest.approx(expected)
    assert outcome.accuracy == outcome.details["by_k"]["trained"]["1"]
    assert (outcome.num_train, outcome.num_test) == (280, 280)


def test_two_sets(pixels, digits):
    train, test = digits
    outcome = evaluate_knn(pixels, train, test, k=(20, 1), temperature=0.2, baselines=False)
    bank, labels = vectors_of(train)
    queries, truth = vectors_of(test)
    predicted = knn_by_hand(bank, labels, queries, 20, 0.2)
    assert outcome.scores["trained"] == score_of(int((predicted == truth).sum()), 120)
    assert outcome.settings["ks"] == [20, 1]
    assert sum(entry["num"] for entry in outcome.per_class.values()) == 120
    # Every mistake is in a pair.
    wrong = int((predicted != truth).sum())
    assert sum(pair["num"] for pair in outcome.confusions) == wrong or len(outcome.confusions) == 10


def test_the_usual_numbers_of_neighbours_fit_the_bank(pixels):
    source = images_of([0] * 4 + [1] * 4)
    assert evaluate_knn(pixels, source, baselines=False).settings["ks"] == [7, 1, 5]


def test_baselines_of_a_network_of_the_callers_own(pixels, digits):
    outcome = evaluate_knn(pixels, *digits, k=5)
    # Nobody knows how it began; its features are the pixels.
    assert list(outcome.scores) == ["trained", "pixels", "pixels_centred"]
    assert outcome.scores["trained"] == outcome.scores["pixels"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": (281,)}, "k = 281: there are only 280 images"),
        ({"k": (5, 0)}, "k = 0: must be at least 1"),
        ({"temperature": 0.0}, "temperature = 0.0: must be above 0"),
        ({"temperature": float("nan")}, "must be above 0"),
        ({"precision": "fp8"}, "precision = 'fp8' is unknown"),
    ],
)
def test_bad_arguments(pixels, digits, settings, message):
    with pytest.raises(ConfigError, match=message):
        evaluate_knn(pixels, *digits, baselines=False, **settings)


def test_in_leave_one_out_an_image_is_not_its_own_neighbour(pixels, digits):
    with pytest.raises(ConfigError, match="there are only 279 images"):
        evaluate_knn(pixels, digits[0], k=(280,), baselines=False)


@pytest.mark.slow
def test_features_are_in_the_precision_of_the_run(run_folder):
    config_file = run_folder / "config.toml"
    for own, asked, used in (("auto", "bf16", "bf16"), ("fp32", None, "fp32"), ("bf16", None, "bf16"),
                             ("bf16", "fp32", "fp32")):  # fmt: skip
        config_file.write_text(re.sub(r'precision = "\w+"', f'precision = "{own}"', config_file.read_text()))
        outcome = evaluate_knn(run_folder, k=5, baselines=False, precision=asked)
        assert outcome.settings["precision"] == used
        assert f"; features in {used}; " in outcome.protocol
        assert f"; features in {used}; " in outcome.compared_by


def test_unlabelled_images_are_left_out_and_counted(pixels):
    source = images_of([0] * 10 + [-1] * 3 + [1] * 10)
    outcome = evaluate_knn(pixels, source, baselines=False)
    assert (outcome.num_train, outcome.settings["num_unlabelled"]) == (20, 3)
    assert "3 images without a label left out" in outcome.protocol
    assert "without a label" not in evaluate_knn(pixels, images_of([0, 1] * 5), baselines=False).protocol


@pytest.mark.slow
def test_a_run_keeps_it_and_gives_k_and_temperature(run_folder, capsys):
    assert run_cli(["evaluate", "knn", str(run_folder), "--json", "--k", "3", "1"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    kept = json.loads((run_folder / "evaluations" / "knn.json").read_text())
    assert kept.pop("when")
    assert kept == printed
    assert list(printed["scores"]) == ["trained", "untrained", "pixels", "pixels_centred"]
    assert printed["settings"]["ks"] == [3, 1]
    outcome = evaluate_knn(run_folder, baselines=False)
    assert (outcome.settings["k"], outcome.settings["temperature"]) == (7, 0.3)
    assert json.loads((run_folder / "evaluations" / "knn.json").read_text())["protocol"] == outcome.protocol


def test_it_prints_the_table_the_classes_and_the_mistakes(run_folder, capsys):
    assert run_cli(["evaluate", "knn", str(run_folder), "--no-baselines"]) == 0
    output = capsys.readouterr().out
    for words in ("95% interval", "k = 7, T = 0.3", "Most confused", "class", str(run_folder)):
        assert words in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--k", "9999"], 2, "there are only 1,437 images"),
        (["--train", "no/such"], 1, "does not exist"),
        (["--k", "x"], 2, "k"),
    ],
)
def test_exit_codes(run_folder, capsys, arguments, code, message):
    assert run_cli(["evaluate", "knn", str(run_folder), "--no-baselines", *arguments]) == code
    assert message in capsys.readouterr().err


def test_the_memory_budget_changes_nothing(generator):
    from stopgrad.metrics.neighbours import nearest_neighbours

    bank = torch.randn(200, 8, generator=generator)
    expected = nearest_neighbours(bank, bank, 9, own=torch.arange(200))
    for budget in (1, 5000, 50_000):
        cosines, places = nearest_neighbours(bank, bank, 9, own=torch.arange(200), memory_budget_bytes=budget)
        assert torch.equal(places, expected[1])
        torch.testing.assert_close(cosines, expected[0])
    assert not (expected[1] == torch.arange(200)[:, None]).any()


def test_one_variant_is_held_in_memory_at_a_time(pixels, digits, monkeypatch):
    made = []
    make = baselines.features_of

    def watched(*given, **options):
        alive.append(sum(reference() is not None for reference in made))
        found = make(*given, **options)
        made.append(weakref.ref(found))
        return found

    alive = []
    monkeypatch.setattr(baselines, "features_of", watched)
    evaluate_knn(pixels, *digits)
    # Of both sides of two variants, one side is there when the other is made, and nothing of the variant before.
    assert alive == [0, 1, 0, 1]
