import json
import socket
import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from stopgrad.distributed import rendezvous
from stopgrad.distributed.rank import Rank
from stopgrad.distributed.rendezvous import meet, versions
from stopgrad.errors import ConfigError, LostProcessError


@pytest.fixture
def store(monkeypatch):
    """Kept by who started the processes, as by torchrun."""
    kept = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    meet_at(monkeypatch, kept.port)
    return kept


def meet_at(monkeypatch, port, *, seconds=2):
    monkeypatch.setattr(rendezvous, "JOINING", timedelta(seconds=seconds))
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))


def introduce(store, index, **changed):
    """Have another process come, as a thread."""

    def come():
        connection = dist.TCPStore("127.0.0.1", store.port, is_master=False)
        own = rendezvous._own_part(connection, Rank(index, index + 1))
        own.set(rendezvous._key(index), json.dumps({"host": "far", "pid": 7, "versions": {**versions(), **changed}}))

    threading.Thread(target=come, daemon=True).start()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_all_are_there(store):
    introduce(store, 1)
    _, names = meet(Rank(0, 2))
    assert names[0].startswith(socket.gethostname())
    assert names[1] == "far, pid 7"


def test_what_was_written_before_a_restart_is_not_taken_for_new(store):
    store.set("stopgrad 1 asks", "before")
    store.set("stopgrad process 1", "before")
    introduce(store, 1)
    assert meet(Rank(0, 2))[1][1] == "far, pid 7"
    introduce(store, 1)
    meet(Rank(0, 2))[0].set("address", "before")
    introduce(store, 1)
    assert not meet(Rank(0, 2))[0].check(["address"])


def test_one_does_not_come(store):
    introduce(store, 1)
    with pytest.raises(LostProcessError, match=r"of 4 processes 2, 3 did not come to 127\.0\.0\.1:\d+ within"):
        meet(Rank(0, 4))


def test_nobody_comes_to_the_first(monkeypatch):
    meet_at(monkeypatch, free_port())
    with pytest.raises(LostProcessError, match=r"not all 2 processes came to 127\.0\.0\.1:\d+ .* 1/2 clients joined"):
        meet(Rank(0, 2))


def test_the_first_is_not_there(monkeypatch):
    meet_at(monkeypatch, free_port())
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(LostProcessError, match=r"process 1 of 2 found nobody at 127\.0\.0\.1:\d+ within"):
        meet(Rank(1, 2))


def test_a_port_that_is_taken(monkeypatch):
    with socket.create_server(("", 0)) as server:
        meet_at(monkeypatch, server.getsockname()[1])
        with pytest.raises(ConfigError, match=r"port \d+ is in use .* set MASTER_PORT"):
            meet(Rank(0, 2))


def test_no_address(monkeypatch):
    meet_at(monkeypatch, 1)
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(ConfigError, match=r"no address to meet the others at: .* MASTER_ADDR"):
        meet(Rank(0, 2))


@pytest.mark.parametrize("what", ["stopgrad", "torch"])
def test_other_versions(store, what):
    introduce(store, 1, **{what: "0.0.1"})
    with pytest.raises(
        ConfigError, match=rf"process 1 of 2 \(far, pid 7\) has {what} 0\.0\.1, process 0 \(.*\) {versions()[what][:3]}"
    ):
        meet(Rank(0, 2))


def test_another_source_is_another_version():
    assert "(source " in versions()["stopgrad"]
