import glob
import json

import pytest
from recorder import Recorder

from stopgrad.distributed import launch as module
from stopgrad.distributed.launch import launch
from stopgrad.errors import DataError, LostProcessError, StopgradError
from stopgrad.reporter import SilentReporter


class Listener(SilentReporter):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(json.loads(text))


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.slow
def test_gradients_are_averaged_over_processes_in_shared_memory_or_by_messages(shares):
    listener = Listener()
    launch("averaging", {"shares": shares, "dies_at": None}, 3, listener)
    assert len(listener.said) == 3
    for said in listener.said:
        assert said["shares"] == shares
        assert said["weights"] == listener.said[0]["weights"]
        # The mean of 1, 2 and 3 times the step, in every element; a flag of one process reaches all.
        assert said["steps"] == [[[False, False], [2.0]], [[True, False], [4.0]], [[False, False], [6.0]]]
    assert not glob.glob("/dev/shm/stopgrad-*")


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    with pytest.raises(StopgradError, match="another of the training processes has ended"):
        launch("averaging", {"shares": True, "dies_at": 1}, 3, Listener())


@pytest.mark.slow
def test_what_the_first_process_does_alone_has_no_time_limit():
    recorder = Recorder()
    launch("meeting", {"do": "work long"}, 2, recorder)
    assert recorder.said == ["done"] * 2


def test_where_the_first_process_fails_alone_its_own_words_count():
    with pytest.raises(DataError, match="the first has no data"):
        launch("meeting", {"do": "fail"}, 2, Recorder())


@pytest.mark.parametrize(
    ("do", "words"),
    [
        ("stay away from the meeting", r"has not answered for .* minutes: process 1 \(says process 0 of 2"),
        ("stay away from the group", r"has not answered for .* minutes \(says process 0 of 2"),
    ],
)
@pytest.mark.slow
def test_nobody_waits_without_end_for_a_process_that_does_something_else(monkeypatch, do, words):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    with pytest.raises(LostProcessError, match=words):
        launch("meeting", {"do": do}, 2, Recorder())


def test_numbers_that_differ_between_processes_are_found():
    recorder = Recorder()
    launch("meeting", {"do": "compare"}, 2, recorder)
    assert recorder.said == ["True False"] * 2
