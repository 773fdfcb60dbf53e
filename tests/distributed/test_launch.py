import os
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest
from recorder import Recorder

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.caching import try_lock
from stopgrad.distributed import launch as module
from stopgrad.distributed.launch import launch
from stopgrad.errors import DataError, Interrupted, StopgradError


@pytest.mark.slow
def test_what_the_processes_say_is_said_here(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stopgrad", "--flag"])
    recorder = Recorder()
    launch("launched", {"do": "speak"}, 2, recorder)
    assert sorted(recorder.said) == ["rank 0 of 2, ['--flag']", "rank 1 of 2, ['--flag']"]
    assert recorder.warned == ["look out"] * 2
    assert recorder.steps == [("work", 1, 2, "half")] * 2


@pytest.mark.slow
def test_no_word_is_lost_though_a_grandchild_keeps_the_pipe(monkeypatch):
    monkeypatch.setattr(module, "LAST_WORDS_SECONDS", 1.0)
    recorder = Recorder()
    launch("launched", {"do": "speak much"}, 2, recorder)
    for rank in (0, 1):
        said = [text for text in recorder.said if text.startswith(f"{rank}: ")]
        assert said == [f"{rank}: {number}" for number in range(3000)]


def test_what_is_printed_before_the_work_ends_nothing(capfd):
    launch("launched", {"do": "speak"}, 1, Recorder())
    assert "printed before the work" in capfd.readouterr().err


def test_threads_and_pipes_end_with_the_processes():
    before = set(threading.enumerate())
    launch("launched", {"do": "speak"}, 2, Recorder())
    assert not set(threading.enumerate()) - before
    messages = queue.SimpleQueue()
    process = module.Launched("launched", {"do": "fail"}, {"RANK": "0"}, messages)
    process.close()
    assert process.returncode == -signal.SIGKILL
    assert process.stdin.closed
    assert process.stdout.closed


def test_a_thread_left_running_keeps_no_process_from_ending():
    begun = time.monotonic()
    launch("launched", {"do": "hang at the end"}, 1, Recorder())
    assert time.monotonic() - begun < 45


@pytest.mark.slow
def test_an_error_comes_as_it_is_and_ends_the_others(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    begun = time.monotonic()
    with pytest.raises(DataError, match="rank 1 has no data") as raised:
        launch("launched", {"do": "fail"}, 2, Recorder())
    assert raised.value.topic == "no-images"
    assert time.monotonic() - begun < 30


@pytest.mark.slow
def test_an_error_of_the_file_system_names_the_file():
    with pytest.raises(StopgradError, match=r"^/runs/a/summary\.json: No space left on device$"):
        launch("launched", {"do": "fill the disk"}, 1, Recorder())


@pytest.mark.slow
def test_a_process_that_dies_without_a_word(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    with pytest.raises(StopgradError, match=r"ended without a message \(exit codes 7, 7\)"):
        launch("launched", {"do": "die"}, 2, Recorder())


@pytest.mark.slow
def test_ctrl_c_reaches_each_process_once(tmp_path):
    recorder = Recorder()

    def press():
        for _ in range(400):
            if len(recorder.said) == 2:
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(Interrupted, match="by 1 signal"):
        launch("launched", {"do": "wait", "note": str(tmp_path / "note")}, 2, recorder)
    assert [(tmp_path / f"note{rank}").read_text() for rank in (0, 1)] == ["SIGINT", "SIGINT"]


PARENT = """
import sys
sys.path[:] = {path!r}
from test_launch import Recorder
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.distributed.launch import launch

class Printer(Recorder):
    def say(self, text):
        print(text, flush=True)

with RunDir({run!r}).held() as lock:
    launch("launched", {{"do": "wait", "note": {note!r}}}, 2, Printer(), keep=(lock.descriptor,))
"""


@pytest.mark.slow
def test_processes_stop_when_the_parent_is_killed(tmp_path):
    """And as long as they save, its run folder is taken."""
    run = RunDir(tmp_path / "run")
    path = [os.path.dirname(__file__), *sys.path]
    script = PARENT.format(path=path, note=str(tmp_path / "note"), run=str(run.path))
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert [parent.stdout.readline()[:3] for _ in range(2)] == ["pid", "pid"]
    parent.kill()
    parent.wait()
    notes = [tmp_path / f"note{rank}" for rank in (0, 1)]
    for _ in range(400):
        if (lock := try_lock(run.lock_file)) is not None:
            break
        time.sleep(0.05)
    assert lock is not None
    assert [note.read_text() for note in notes] == ["SIGTERM", "SIGTERM"]
