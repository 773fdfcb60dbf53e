"""Faults injected, in short; at length: benchmarks/faults.py."""

import subprocess
import sys

import faults
import pytest

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_a_run_that_is_killed_at_random_moments_loses_nothing(tmp_path):
    found = faults.measure(tmp_path, kills=2, seed=0, devices=1)
    assert found["lost"] == []
    assert found["kills"] == 2
    assert found["whole_runs"] >= 1


def test_a_disk_that_is_full_ends_a_run_with_all_before_intact(tmp_path):
    """By a limit on the size of a file, which gives the same kind of error where no small disk can be had."""
    faults.write_images(tmp_path / "images", num=64)
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000)); "
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "sys.argv[0] = 'stopgrad'; runpy.run_module('stopgrad', run_name='__main__')"
    )
    out = tmp_path / "run"
    flags = ["pretrain", str(tmp_path / "images"), "--out", str(out), *faults.FLAGS, "--cache", "off"]
    ended = subprocess.run([sys.executable, "-c", limited, *flags], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "cannot be written" in ended.stderr
    assert "Earlier checkpoints are intact" in ended.stderr
    resumed = subprocess.run(
        [sys.executable, "-m", "stopgrad", "pretrain", "--out", str(out), "--resume"], capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
