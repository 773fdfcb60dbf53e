import glob
import json

import pytest

from stopgrad.errors import StopgradError
from stopgrad.reporter import SilentReporter
from stopgrad.train import launch as module
from stopgrad.train.launch import launch


class Listener(SilentReporter):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(json.loads(text))


@pytest.mark.parametrize("shares", [True, False])
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


def test_a_process_that_dies_ends_the_others(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    with pytest.raises(StopgradError, match="another of the training processes has ended"):
        launch("averaging", {"shares": True, "dies_at": 1}, 3, Listener())
