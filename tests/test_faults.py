"""Faults injected, in short; at length: benchmarks/faults.py and .ci/nightly."""

import errno
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import faults
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from stopgrad.artifacts import checkpoint as checkpoints
from stopgrad.artifacts.checkpoint import load_checkpoint
from stopgrad.artifacts.files import checkpoints_in, temporaries_in, write_atomically
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cli.main import run as stopgrad
from stopgrad.data.kinds.folders import FileSource
from stopgrad.loader.loader import Loader

pytestmark = pytest.mark.faults

FLAGS = [
    "--steps", "6", "--batch-size", "16", "--image-size", "16", "--backbone", "resnet10_16", "--stem", "small",
    "--init", "random", "--device", "cpu", "--devices", "1", "--precision", "fp32", "--checkpoint-every-steps", "2",
    "--log-every-steps", "1", "--monitor-images", "16", "--no-baselines", "--no-report",
    "--projector-width", "16", "--projection-dim", "16", "--predictor-width", "8",
]  # fmt: skip
UNLESS_GIVEN = {"--cache": "off", "--logger": "none"}
# Files are read while it trains, and not all before.
EACH_EPOCH = ["--memory-gb", "1e-9"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    faults.write_images(folder, num=40)
    return folder


def command(images, out, *flags):
    more = [word for flag, value in UNLESS_GIVEN.items() if flag not in flags for word in (flag, value)]
    return ["pretrain", str(images), "--out", str(out), *FLAGS, *more, *flags]


def encoder_of(out):
    return {name: tensor.clone() for name, tensor in load_file(out / "encoder.safetensors").items()}


def log_of(out):
    return [(line["step"], line["loss"]) for line in RunDir(out).read_metrics()]


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """What a run that meets no fault comes to."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert stopgrad(command(images, out)) == 0
    return SimpleNamespace(encoder=encoder_of(out), log=log_of(out))


def assert_same(out, alone):
    found = encoder_of(out)
    assert [name for name, tensor in alone.encoder.items() if not torch.equal(tensor, found[name])] == []
    assert log_of(out) == alone.log


@pytest.fixture
def attempt(images, tmp_path, capfd):
    """Train in a folder; the exit code and the error, which is one line."""
    out = tmp_path / "run"

    def train(*flags, resume=False):
        capfd.readouterr()
        code = stopgrad(["pretrain", "--out", str(out), "--resume"] if resume else command(images, out, *flags))
        train.said = said = capfd.readouterr().err
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if line.startswith("stopgrad: ")]
        assert len(lines) == (code != 0)
        return code, "".join(lines)

    train.out = out
    return train


def assert_nothing_is_lost(out, *, least=0):
    """Every checkpoint is whole, the newest is of step `least` or later, and nothing half-written lies about."""
    steps = [load_checkpoint(path)["progress"]["step"] for path in checkpoints_in(out / "checkpoints")]
    assert max(steps, default=0) >= least
    assert temporaries_in(out) + temporaries_in(out / "checkpoints") == []


def assert_goes_on(attempt, alone):
    """Nothing is lost, and the run resumes to the weights of one without the fault."""
    assert_nothing_is_lost(attempt.out)
    assert attempt(resume=True) == (0, "")
    assert_same(attempt.out, alone)


# Disks


def failing(monkeypatch, name, call, number=errno.ENOSPC):
    """Have a call on a file of this name, or on what is to become it, fail."""
    error = OSError(number, os.strerror(number))
    touch, fsync, replace = Path.touch, os.fsync, os.replace

    def check(asked, path):
        if asked == call and name in os.path.basename(path):
            raise error

    def failing_touch(self, *arguments, **keywords):
        check("open", self)
        touch(self, *arguments, **keywords)

    def failing_fsync(descriptor):
        check("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def failing_replace(source, target):
        check("replace", target)
        replace(source, target)

    monkeypatch.setattr(Path, "touch", failing_touch)
    monkeypatch.setattr(os, "fsync", failing_fsync)
    monkeypatch.setattr(os, "replace", failing_replace)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for names of open files")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path, monkeypatch, call, number):
    path = tmp_path / "x.json"
    path.write_text("old")
    failing(monkeypatch, path.name, call, number)

    def write(temporary):
        temporary.write_text("ne")
        if call == "write":
            raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        write_atomically(path, write)
    assert caught.value.filename == str(path)
    assert caught.value.errno == number
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for names of open files")
@pytest.mark.parametrize(
    ("name", "call", "number", "least"),
    [
        ("config.toml", "replace", errno.ENOSPC, 0),
        ("environment.json", "open", errno.EROFS, 0),
        ("metrics.jsonl", "fsync", errno.ENOSPC, 0),
        ("step-00000002.ckpt", "fsync", errno.ENOSPC, 0),
        ("step-00000004.ckpt", "open", errno.EROFS, 2),
        ("step-00000004.ckpt", "replace", errno.EIO, 2),
        ("encoder.safetensors", "fsync", errno.ENOSPC, 6),
        ("encoder.json", "replace", errno.EROFS, 6),
        ("summary.json", "open", errno.ENOSPC, 6),
    ],
)
def test_a_disk_that_fails_while_a_run_writes(attempt, alone, monkeypatch, name, call, number, least):
    with monkeypatch.context() as patch:
        failing(patch, name, call, number)
        code, error = attempt()
    assert code == 1
    assert name in error
    assert os.strerror(number) in error
    assert ("Earlier checkpoints are intact" in error) == name.endswith(".ckpt")
    assert_nothing_is_lost(attempt.out, least=least)
    begun = RunDir(attempt.out).is_run
    assert begun == (name != "config.toml")
    assert attempt(resume=begun) == (0, "")
    assert_same(attempt.out, alone)


def test_a_disk_that_is_full_while_a_line_is_logged(attempt, alone, monkeypatch):
    def full(self, line, append=RunDir.append_metrics):
        if line["step"] == 3:
            # A symbolic link to it fails when the line is written, and not before.
            kept = self.metrics_file.rename(self.path / "kept")
            self.metrics_file.symlink_to("/dev/full")
            try:
                append(self, line)
            finally:
                kept.rename(self.metrics_file)
        append(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "append_metrics", full)
        code, error = attempt()
    assert code == 1
    assert "metrics.jsonl cannot be written: No space left on device. Checkpoints are intact" in error
    assert_nothing_is_lost(attempt.out, least=2)
    assert attempt(resume=True) == (0, "")
    assert_same(attempt.out, alone)


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_library_that_writes_checkpoints(attempt, alone, monkeypatch):
    def full(tensors, path, metadata, save=checkpoints.save_file):
        save(tensors, path, metadata=metadata)
        path.write_bytes(path.read_bytes()[:500])
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        code, error = attempt()
    assert code == 1
    assert "step-00000002.ckpt cannot be written" in error
    assert_goes_on(attempt, alone)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 400 kB, where one can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True)
    except OSError:
        pytest.skip("no mount")
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_small_disk_that_really_fills_up(images, alone, small_disk, capfd):
    run = small_disk / "run"
    assert stopgrad(command(images, run, "--checkpoint-keep", "9")) == 1
    assert "cannot be written" in capfd.readouterr().err
    assert_nothing_is_lost(run)
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    assert stopgrad(["pretrain", "--out", str(run), "--resume"]) == 0
    assert_same(run, alone)


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_page_that_cannot_be_written_fails_no_run(images, attempt, alone, monkeypatch, number, capfd):
    import stopgrad.report.run as pages

    def fail(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(pages, "write_page", fail)
    monkeypatch.setattr(pages, "draw_page", lambda run, *_, **__: fail(run.report_file))
    capfd.readouterr()
    words = [word for word in command(images, attempt.out) if word != "--no-report"]
    assert stopgrad(words) == 0
    assert "report.html could not be drawn" in " ".join(capfd.readouterr().err.split())
    assert_same(attempt.out, alone)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_a_cache_that_cannot_be_written_fails_no_run(attempt, alone, monkeypatch, tmp_path, number):
    from stopgrad.cache.build import EntryWriter

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(EntryWriter, "add", fail)
    assert attempt("--cache", str(tmp_path / "cache")) == (0, "")
    assert_same(attempt.out, alone)


# Images


class Failing:
    """Has files fail from the n-th read on, while `with` it."""

    def __init__(self, monkeypatch, fail, after=60):
        self._patch, self._fail, self._reads = monkeypatch, fail, itertools.count()
        self._after = after

    def __enter__(self):
        def read(source, index, read=FileSource.read):
            if next(self._reads) >= self._after:
                self._fail(source.name(index))
            return read(source, index)

        self._context = self._patch.context()
        self._context.__enter__().setattr(FileSource, "read", read)

    def __exit__(self, *error):
        self._context.__exit__(*error)


def of_file(part, error):
    def fail(name):
        if part in name:
            raise error

    return fail


EIO = OSError(errno.EIO, "Input/output error")


def test_an_image_whose_disk_fails_is_skipped_and_named(attempt, alone, monkeypatch):
    with Failing(monkeypatch, of_file("0007.png", EIO)):
        assert attempt(*EACH_EPOCH) == (0, "")
    (skipped,) = RunDir(attempt.out).read_summary()["skipped"]
    assert skipped["name"].endswith("0007.png")
    assert skipped["reason"] == "Input/output error"
    assert [step for step, _ in log_of(attempt.out)] == [step for step, _ in alone.log]


def test_or_refused_and_the_run_goes_on_when_it_can_be_read_again(attempt, alone, monkeypatch):
    with Failing(monkeypatch, of_file("0007.png", EIO), after=120):
        code, error = attempt(*EACH_EPOCH, "--strict")
    assert code == 1
    assert "0007.png cannot be read: Input/output error" in error
    assert_goes_on(attempt, alone)


def test_a_disk_that_is_gone(attempt, alone, monkeypatch):
    with Failing(monkeypatch, of_file("", EIO), after=120):
        code, error = attempt(*EACH_EPOCH)
    assert code == 1
    assert "images of a batch can be read" in error
    assert_goes_on(attempt, alone)


def test_files_that_are_cut_off_and_deleted_while_a_run_reads_them(tmp_path, monkeypatch):
    faults.write_images(tmp_path / "images", num=40)
    cut, gone = (tmp_path / "images" / "class1" / name for name in ("0003.png", "0005.png"))

    def damage(_):
        if gone.exists():
            cut.write_bytes(cut.read_bytes()[:300])
            # Threads read side by side: another may have been sooner.
            gone.unlink(missing_ok=True)

    out = tmp_path / "run"
    with Failing(monkeypatch, damage):
        code = stopgrad(command(tmp_path / "images", out, *EACH_EPOCH))
    assert code == 0
    skipped = {Path(item["name"]).name: item["reason"] for item in RunDir(out).read_summary()["skipped"]}
    assert skipped.keys() == {"0003.png", "0005.png"}
    assert skipped["0005.png"] == "No such file or directory"
    assert len(log_of(out)) == 6


def test_a_thread_that_fails_in_no_foreseen_way_names_the_image(attempt, alone, monkeypatch):
    with Failing(monkeypatch, of_file("0007.png", RuntimeError("a fault")), after=120):
        code, error = attempt(*EACH_EPOCH)
    assert code == 1
    assert "0007.png failed: RuntimeError: a fault." in error
    assert_goes_on(attempt, alone)


def test_a_fault_in_the_loader_itself_ends_the_run_and_its_threads(attempt, monkeypatch):
    """It shows where it is: it is one of ours."""
    import threading

    def draw(*_):
        raise IndexError("a fault of ours")

    monkeypatch.setattr(Loader, "_draw", draw)
    with pytest.raises(IndexError, match="a fault of ours"):
        attempt()
    assert not [thread for thread in threading.enumerate() if thread.name == "stopgrad-loader"]


# The rest


def test_a_clock_that_is_set_back_changes_nothing(attempt, alone, monkeypatch):
    hours = itertools.count()
    real = time.time

    def earlier():
        return real() - 3600 * next(hours)

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", earlier)
        assert attempt("--time-limit-seconds", "3600", "--logger", "tensorboard") == (0, "")
    assert_same(attempt.out, alone)
    seconds = [line["seconds"] for line in RunDir(attempt.out).read_metrics()]
    assert seconds == sorted(seconds)
    # The newest checkpoint is the one of the most steps, whatever the file's time says.
    newest, older = checkpoints_in(attempt.out / "checkpoints")[:2]
    os.utime(newest, (0, 0))
    assert checkpoints_in(attempt.out / "checkpoints")[:2] == [newest, older]


def test_what_a_killed_process_had_begun_to_write_is_not_in_the_way_and_goes(attempt, alone):
    (attempt.out / "checkpoints").mkdir(parents=True)
    litter = [attempt.out / ".config.toml.12.tmp", attempt.out / "checkpoints" / ".step-00000002.ckpt.12.tmp"]
    others = [attempt.out / ".report.html.12.tmp"]
    for path in litter:
        path.write_bytes(b"half")
    assert attempt() == (0, "")
    for path in [*litter, *others]:
        path.write_bytes(b"half")
    assert attempt(resume=True) == (0, "")
    assert [path for path in litter if path.exists()] == []
    # Somebody else may be drawing a page.
    assert [path for path in others if path.exists()] == others
    assert_same(attempt.out, alone)


def test_a_run_that_goes_on_with_other_threads_says_so(attempt):
    """Its bits are no longer those of a run left alone."""
    assert attempt() == (0, "")
    run = RunDir(attempt.out)
    checkpoints_in(run.checkpoint_dir)[0].unlink()
    assert attempt(resume=True) == (0, "")
    assert "threads" not in attempt.said
    run.write_json("environment.json", {**run.read_environment(), "threads": 99})
    assert attempt(resume=True) == (0, "")
    assert "with 99 threads a process so far" in attempt.said


# At length


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_that_is_killed_at_random_moments_loses_nothing(tmp_path, devices):
    found = faults.measure(tmp_path, kills=2, seed=0, devices=devices)
    assert found["lost"] == []
    assert found["kills"] == 2
    assert found["whole_runs"] >= 1


@pytest.mark.slow
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
