import pytest

from stopgrad.schedules import cosine, warmup_cosine


def test_the_cosine_falls_from_one_to_zero():
    assert cosine(0, 10) == 1
    assert cosine(5, 10) == pytest.approx(0.5)
    assert cosine(10, 10) == pytest.approx(0)


def test_warmup_rises_to_one_and_the_cosine_starts_after_it():
    values = [warmup_cosine(step, 20, 4) for step in range(20)]
    assert values[:4] == [0.25, 0.5, 0.75, 1]
    assert values[4] == 1
    assert values[12] == pytest.approx(0.5)
    assert values[4:] == sorted(values[4:], reverse=True)
