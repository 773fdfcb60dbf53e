import pytest
import torch

from stopgrad.evaluate.shared.outcome import by_class, score, score_of, score_over_draws


@pytest.mark.parametrize(
    ("right", "num", "low", "high"),
    [
        # Table I of Newcombe (Statistics in Medicine 17, 1998), method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(right, num, low, high):
    found = score_of(right, num)
    assert found.accuracy == right / num
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_all_right_is_no_certainty():
    assert score_of(20, 20).high == 1
    assert score_of(20, 20).low == pytest.approx(1 - 0.1611, abs=5e-5)
    with pytest.raises(ValueError, match="no images"):
        score_of(0, 0)


def test_confusions():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 1, 1, 2, 1, 0, 2])
    per_class, confusions = by_class(predicted, labels, ["a", "b", "c", "d"])
    assert per_class == {
        "a": {"accuracy": 0.25, "num": 4}, "b": {"accuracy": 0.5, "num": 2}, "c": {"accuracy": 1.0, "num": 1},
    }  # fmt: skip
    assert confusions[0] == {"true": "a", "predicted": "b", "num": 2, "share": 0.5}
    assert [(c["true"], c["predicted"]) for c in confusions] == [("a", "b"), ("a", "c"), ("b", "a")]
    assert score(predicted, labels).accuracy == pytest.approx(3 / 7)


def test_no_mistakes_no_confusions():
    labels = torch.tensor([0, 1])
    assert by_class(labels, labels, ["a", "b"])[1] == []


def test_thousands_of_classes_take_no_table_of_all_pairs():
    # classes^2 counts of 8 bytes would be 320 GB.
    num = 200_000
    labels = torch.arange(num)
    predicted = labels.clone()
    predicted[7], predicted[num - 1] = 9, 0
    per_class, confusions = by_class(predicted, labels, range(num))
    assert sum(entry["accuracy"] for entry in per_class.values()) == num - 2
    assert [(c["true"], c["predicted"]) for c in confusions] == [(7, 9), (num - 1, 0)]


def test_draws_are_averaged():
    labels = torch.tensor([0, 0, 1, 1])
    predicted = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    found = score_over_draws(predicted, labels)
    assert found.accuracy == pytest.approx(0.75)
    assert found.std == pytest.approx(0.25)
    # Student's t with two degrees of freedom: 4.3027.
    assert found.low == pytest.approx(0.75 - 4.3027 * 0.25 / 3**0.5, abs=1e-4)
    assert found.high == 1.0
    per_class, confusions = by_class(predicted, labels, ["a", "b"])
    assert per_class == {"a": {"accuracy": 0.5, "num": 2}, "b": {"accuracy": 1.0, "num": 2}}
    assert confusions == [{"true": "a", "predicted": "b", "num": 1, "share": 0.5}]
