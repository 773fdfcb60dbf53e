import signal

import pytest

from stopgrad import stop as module
from stopgrad.errors import Interrupted
from stopgrad.stop import StopRequest


def test_the_first_signal_is_noted_and_the_second_interrupts(monkeypatch):
    now = iter([10.0, 11.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested() == "Ctrl-C"
        with pytest.raises(Interrupted, match="at once"):
            signal.raise_signal(signal.SIGINT)


def test_what_batch_systems_send_before_the_end_is_a_request():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGUSR1)
        assert stop.requested() == "SIGUSR1"
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_an_echo_of_the_first_signal_is_none():
    """A process group and its parent may hand on one signal twice; what is being saved is to be saved."""
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested() == "SIGTERM"
