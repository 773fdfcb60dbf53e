"""A process of a run that hangs, by SIGSTOP."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workers import FLAGS, worker

from stopgrad.artifacts.run_dir import RunDir


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to find the process")
def test_a_run_ends_when_a_process_hangs_names_it_and_can_be_resumed(tmp_path):
    run = RunDir(tmp_path / "run")
    command = [sys.executable, "-m", "stopgrad", "pretrain", "--out", str(run.path)]
    flags = ["--devices", "2", "--steps", "24", "--checkpoint-every-steps", "5", "--hang-seconds", "6"]
    process = subprocess.Popen([*command, *FLAGS, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while len(run.read_metrics()) < 6:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stopped = worker(process.pid, 1)
    os.kill(stopped, signal.SIGSTOP)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert f"pid {stopped}) of 2 has given no sign of life for 6 seconds (hang_seconds = 6)" in said
    assert "resume goes on from the newest" in said
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    assert [line["step"] for line in run.read_metrics()] == list(range(1, 25))
