"""What a log gets, where there is no terminal."""

import pytest

from stopgrad.cli.shared import console
from stopgrad.cli.shared.console import ConsoleReporter, time_left


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_log_says_how_long_it_takes_yet(clock, capsys):
    with ConsoleReporter() as reporter:
        # Resumed at step 500: those before took this call no time.
        for step in range(501, 1001):
            clock[0] += 0.5
            reporter.progress("training", step, 1000, "loss -0.9" if step % 50 == 0 else "")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training 550/1000  loss -0.9  4 min left"
    assert lines[1] == "training 600/1000  loss -0.9  3 min left"
    assert lines[-2] == "training 950/1000  loss -0.9  20 s left"
    assert lines[-1] == "training 1000/1000  loss -0.9"


def test_nothing_is_said_before_it_can_be_known(clock, capsys):
    with ConsoleReporter() as reporter:
        reporter.progress("reading images", 0, 100)
        clock[0] += 20
        reporter.progress("reading images", 0, 100)
        clock[0] += 20
        reporter.progress("reading images", 50, 100)
        reporter.progress("reading images", 100, 100)
        # The next data set's clock is its own.
        reporter.progress("reading images", 0, 100)
        clock[0] += 10
        reporter.progress("reading images", 10, 100)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["reading images 0/100", "reading images 50/100  40 s left", "reading images 10/100  2 min left"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "10 s left"),
        (44, "40 s left"),
        (89, "90 s left"),
        (95, "2 min left"),
        (59.4 * 60, "59 min left"),
        (80 * 60, "1 h 20 min left"),
        (60 * 3600, "2.5 days left"),
    ],
)
def test_times_are_as_exact_as_they_can_be(seconds, words):
    assert time_left(seconds) == words
