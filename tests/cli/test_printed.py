"""What is printed of an outcome."""

import pytest

from stopgrad.artifacts.names import EVALUATIONS, VARIANTS, evaluation_name, variant_name
from stopgrad.cli.evaluate import evaluate
from stopgrad.cli.shared.console import plain_console
from stopgrad.cli.shared.outcome import print_outcome
from stopgrad.evaluate.shared.outcome import Outcome, Score


@pytest.mark.parametrize("name", ["dog [small]", "a[/b]", "[bold]", ":dog:", "back\\"])
def test_names_of_classes_are_printed_as_they_are(name, capsys):
    score = Score(0.5, 0.4, 0.6)
    print_outcome(Outcome(
        evaluation="knn", encoder=name, protocol=f"of {name}", settings={}, scores={"trained": score, name: score},
        num_train=4, num_test=4, per_class={name: {"accuracy": 0.5, "num": 4}},
        confusions=[{"true": name, "predicted": "cat", "num": 2, "share": 0.5}],
        skipped=[{"name": f"{name}.png", "reason": "broken"}],
    ))  # fmt: skip
    output = capsys.readouterr().out
    # Encoder, protocol, variant, class, confusion and what was skipped.
    assert output.count(name) == 6


def test_settings_are_printed_as_they_are(capsys):
    from stopgrad.cli.report import _table

    table = _table("setting", ["A"], "left")
    table.add_row("path", "photos[/old]")
    plain_console(width=80).print(table)
    assert "photos[/old]" in capsys.readouterr().out


def test_every_evaluation_has_a_name():
    assert {name for name in evaluate if not name.startswith("-")} == set(EVALUATIONS)
    assert {"from_scratch", "untrained"} < set(VARIANTS)
    assert (evaluation_name("odd"), variant_name("an_other")) == ("odd", "an other")
