import pytest
import torch

from stopgrad import knn_predict


def by_hand(bank, labels, queries, k, temperature, num_classes):
    """One query at a time, in float64."""
    predictions = []
    bank = torch.nn.functional.normalize(bank.double(), dim=1)
    for query in torch.nn.functional.normalize(queries.double(), dim=1):
        cosines = bank @ query
        votes = torch.zeros(num_classes, dtype=torch.float64)
        for index in cosines.argsort(descending=True)[:k]:
            votes[labels[index]] += (cosines[index] / temperature).exp()
        predictions.append(int(votes.argmax()))
    return torch.tensor(predictions)


@pytest.fixture
def problem(generator):
    centres = torch.randn(5, 12, generator=generator)
    labels = torch.randint(5, (300,), generator=generator)
    bank = centres[labels] + torch.randn(300, 12, generator=generator)
    queries = centres[torch.randint(5, (80,), generator=generator)] + torch.randn(80, 12, generator=generator)
    return bank, labels, queries


@pytest.mark.parametrize("k", [1, 7, 300])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_equals_the_vote_by_hand(problem, k, temperature):
    predicted = knn_predict(*problem, k=k, temperature=temperature, num_classes=5)
    assert torch.equal(predicted, by_hand(*problem, k, temperature, 5))


@pytest.mark.parametrize("budget", [1, 1000, 20_000, 2**20])
def test_the_memory_budget_changes_nothing(problem, budget):
    expected = knn_predict(*problem, k=20, temperature=0.2, num_classes=5)
    assert torch.equal(
        knn_predict(*problem, k=20, temperature=0.2, num_classes=5, memory_budget_bytes=budget), expected
    )


def test_scale_does_not_matter(problem, generator):
    bank, labels, queries = problem
    scaled = bank * torch.rand(300, 1, generator=generator).add(0.1)
    expected = knn_predict(bank, labels, queries, k=20, temperature=0.2, num_classes=5)
    assert torch.equal(knn_predict(scaled, labels, 7 * queries, k=20, temperature=0.2, num_classes=5), expected)


def test_a_tiny_temperature_does_not_overflow(problem):
    bank, labels, _ = problem
    predicted = knn_predict(bank, labels, bank, k=20, temperature=1e-3, num_classes=5)
    assert torch.equal(predicted, labels)


def test_half_precision_and_no_queries(problem):
    bank, labels, queries = problem
    predicted = knn_predict(bank.bfloat16(), labels, queries.bfloat16(), k=5, temperature=0.2, num_classes=5)
    assert predicted.shape == (80,)
    assert knn_predict(bank, labels, queries[:0], k=5, temperature=0.2, num_classes=5).shape == (0,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 301}, "size of the bank, 300"),
        ({"k": 0}, "from 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"num_classes": 4}, "0..3"),
    ],
)
def test_bad_arguments(problem, settings, message):
    with pytest.raises(ValueError, match=message):
        knn_predict(*problem, **{"k": 5, "temperature": 0.2, "num_classes": 5, **settings})
