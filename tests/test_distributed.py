import glob
import json
import time

import pytest
from recorder import Recorder

from stopgrad.distributed import launch as module
from stopgrad.distributed import watch
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
    """Neither that of a message nor that of a process that hangs."""
    recorder = Recorder()
    launch("meeting", {"do": "work long", "hang_seconds": 3.0, "without a watch": True}, 2, recorder)
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
        launch("meeting", {"do": do, "without a watch": True}, 2, Recorder())


@pytest.mark.parametrize("do", ["stay away from the meeting", "stay away from the group"])
@pytest.mark.slow
def test_a_process_that_keeps_the_others_waiting_is_named(monkeypatch, capfd, do):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    with pytest.raises(LostProcessError, match=r"process 1 \(.*, pid \d+\) of 3 has kept the others waiting for 4 sec"):
        launch("meeting", {"do": do, "hang_seconds": 4.0}, 3, Recorder())
    # Where it is, for whoever looks into it.
    assert 'meeting.py", line' in capfd.readouterr().err


@pytest.mark.parametrize(("which", "alone"), [(1, False), (0, False), (0, True)])
@pytest.mark.slow
def test_a_process_that_is_stopped_is_named(monkeypatch, which, alone):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    begun = time.monotonic()
    with pytest.raises(LostProcessError, match=rf"process {which} \(.*\) of 2 has given no sign of life for 4 seconds"):
        launch("meeting", {"do": "stop", "which": which, "alone": alone, "hang_seconds": 4.0}, 2, Recorder())
    assert time.monotonic() - begun < 60


def test_values_that_differ_between_processes_are_found():
    with pytest.raises(DataError, match="process 1 of 2 does not agree with process 0: images = 8 there, 7 here"):
        launch("meeting", {"do": "compare"}, 2, Recorder())


def seen(*changes, looks=5):
    """What is known after so many looks at processes: of each, if its sign changes, its state, if that does."""
    known = [watch._Seen() for _ in changes]
    for look in range(looks + 1):
        for one, (signs, state, moves) in zip(known, changes, strict=True):
            one.look(f"{look * signs} {state} {look * moves}")
    return known


@pytest.mark.parametrize(
    ("changes", "hanging"),
    [
        ([(1, "works", 1), (1, "waits", 1)], []),
        ([(1, "works", 0), (1, "waits", 0)], [0]),
        ([(1, "works", 0), (1, "waits", 0), (1, "works", 0)], [0, 2]),
        # The first step may compile for as long as it takes, while nothing waits.
        ([(1, "works", 0), (1, "works", 0)], []),
        ([(1, "alone", 0), (1, "alone", 0), (1, "waits", 0)], []),
        ([(0, "alone", 0), (1, "alone", 0)], [0]),
        ([(0, "waits", 0), (1, "waits", 0)], [0]),
        ([(0, "left", 0), (1, "alone", 0)], []),
        ([(0, "left", 0), (1, "waits", 0)], [0]),
    ],
)
def test_which_process_hangs(changes, hanging):
    assert watch.find_hanging(seen(*changes), 5)[0] == hanging
    assert watch.find_hanging(seen(*changes, looks=4), 5)[0] == []
