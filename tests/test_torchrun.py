"""Runs that torchrun starts, on two machines, which are two agents here, and anew when a process dies; or SLURM."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workers import FLAGS, worker

from stopgrad.artifacts.files import checkpoints_in
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.errors import ConfigError
from stopgrad.train.request import goes_on


def agent(out, *flags, steps, more=()):
    command = [sys.executable, "-m", "torch.distributed.run", *flags, "-m", "stopgrad", "pretrain", "--out", str(out)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *FLAGS, "--steps", str(steps), *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment, start_new_session=True,
    )  # fmt: skip


def on_two_machines(out, *more, different=()):
    """An agent each, which meet on the loopback; the second may be given other flags."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
    flags = (
        "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", place, "--rdzv-id", "a",
        "--local-addr", "127.0.0.1",
    )  # fmt: skip
    agents = [agent(out, *flags, steps=3, more=(*more, *own)) for own in ((), different)]
    return agents, [one.communicate(timeout=550)[0] for one in agents]


@pytest.mark.slow
def test_two_machines_train_one_network(tmp_path):
    agents, said = on_two_machines(tmp_path / "run", "--batch-statistics", "global")
    assert [one.returncode for one in agents] == [0, 0], said
    assert any("2 processes, which compute what one would" in text for text in said)
    assert [line["images_seen"] for line in RunDir(tmp_path / "run").read_metrics()] == [64, 128, 192]


@pytest.mark.slow
def test_machines_with_other_settings_are_refused_before_the_first_step(tmp_path):
    agents, said = on_two_machines(tmp_path / "run", different=("--lr", "0.7"))
    assert all(one.returncode for one in agents)
    assert any("process 1 of 2 does not agree with process 0: lr = 0.7 there" in text for text in said) or any(
        "lr = 1.0 there, 0.7 here" in text for text in said
    ), said
    assert not RunDir(tmp_path / "run").is_run


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to find the process")
def test_after_a_process_has_died_torchruns_restart_goes_on_from_the_last_checkpoint(tmp_path):
    run = RunDir(tmp_path / "run")
    flags = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    process = agent(run.path, *flags, steps=400, more=("--checkpoint-every-steps", "5"))
    deadline = time.monotonic() + 400
    while not checkpoints_in(run.checkpoint_dir):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(worker(process.pid, 1), signal.SIGKILL)
    said, _ = process.communicate(timeout=550)
    assert process.returncode == 0, said
    resumed = [line for line in said.splitlines() if "Resumed at step" in line]
    assert resumed, said
    assert 5 <= int(resumed[0].split("step ")[1].split()[0].replace(",", "")) < 400
    assert [line["step"] for line in run.read_metrics()] == list(range(1, 401))
    assert json.loads(run.summary_file.read_text())["images_seen"] == 400 * 64


def tasks(out, *more):
    """As srun starts them; the first keeps the store."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    started = []
    for index in ("0", "1"):
        variables = {"SLURM_PROCID": index, "SLURM_LOCALID": index, "SLURM_STEP_NUM_TASKS": "2", "MASTER_PORT": port}
        variables |= {"SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "stopgrad", "pretrain", "--out", str(out), *FLAGS, *more]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **variables}
            )
        )
    return started


@pytest.mark.slow
def test_two_tasks_of_slurm_train_one_network(tmp_path):
    started = tasks(tmp_path / "run", "--steps", "3")
    said = [one.communicate(timeout=300)[0] for one in started]
    assert [one.returncode for one in started] == [0, 0], said
    assert len(RunDir(tmp_path / "run").read_metrics()) == 3


@pytest.mark.slow
def test_the_process_that_keeps_the_store_is_named_when_it_hangs(tmp_path):
    run = RunDir(tmp_path / "run")
    first, second = tasks(run.path, "--steps", "5000", "--hang-seconds", "6")
    deadline = time.monotonic() + 300
    while len(run.read_metrics()) < 3:
        assert second.poll() is None, second.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)
    try:
        said, _ = second.communicate(timeout=120)
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 1
    assert f"process 0 ({socket.gethostname()}, pid {first.pid}) of 2 has not answered for 6 seconds" in said


def test_who_goes_on(tmp_path, monkeypatch):
    def asked(**flags):
        return goes_on(tmp_path, **{"resume": False, "overwrite": False, **flags})

    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    # It died before there was a run.
    assert not asked()
    assert not asked(overwrite=True)
    (tmp_path / "config.toml").touch()
    assert asked()
    assert asked(resume=True)
    with pytest.raises(ConfigError, match="overwrite would delete the run"):
        asked(overwrite=True)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not asked()
    assert not asked(overwrite=True)
    # Of two machines one counts, the other joins it.
    monkeypatch.setenv("RANK", "1")
    assert asked()
    assert not asked(overwrite=True)
