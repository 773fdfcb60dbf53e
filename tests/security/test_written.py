"""What is written and printed: permissions by the umask, names that cannot steer a terminal or bend a model card."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from photos import write_photos, write_run
from rich.table import Table

import stopgrad
from stopgrad.artifacts.checkpoint import save_checkpoint
from stopgrad.artifacts.files import write_atomically
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cli.main import run as run_command
from stopgrad.cli.shared.console import ConsoleReporter, plain_console
from stopgrad.embeddings.formats import FORMAT, Rows, write_rows
from stopgrad.embeddings.read import read_embeddings
from stopgrad.exports.hub import code, prose
from stopgrad.visible import visible

NAME = "a\x1b]0;owned\x07\x1b[2J\u202e\udcff.png"
SHOWN = "a\\x1b]0;owned\\x07\\x1b[2J\\u202e\\xff.png"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")


@pytest.fixture(params=[0o022, 0o077], ids=["022", "077"])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder):
    return {str(p.relative_to(folder)): stat.S_IMODE(p.stat().st_mode) for p in sorted(folder.rglob("*"))}


@POSIX
def test_files_have_the_permissions_of_the_user(tmp_path, umask, monkeypatch):
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    write_photos(data, num=12)
    run = RunDir(write_run(tmp_path / "run", data))
    save_checkpoint(run.checkpoint_dir / "step-00000001.ckpt", {"method": {"a": torch.ones(2)}})
    run.append_metrics({"step": 1})
    run.write_evaluation("knn", {})
    for suffix in ("parquet", "npy", "csv"):
        stopgrad.embed_to_file(run.path, data, tmp_path / f"e.{suffix}")
    stopgrad.export(run.path, out=tmp_path / "hub", to="hub-folder")
    stopgrad.export(run.path, out=tmp_path / "x.safetensors", to="timm")
    stopgrad.write_encoder_report(run.path, data, out=tmp_path / "page.html")
    found = modes(tmp_path)
    wrong = {n: oct(m) for n, m in found.items() if m != (0o777 if (tmp_path / n).is_dir() else 0o666) & ~umask}
    assert len(found) > 30
    assert wrong == {}


@POSIX
def test_a_writer_that_makes_its_file_private_changes_nothing(tmp_path, umask):
    def private(path):
        path.unlink()
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))

    write_atomically(tmp_path / "x", private)
    assert modes(tmp_path) == {"x": 0o666 & ~umask}


def test_control_characters_are_shown(capsys):
    assert visible(NAME) == SHOWN
    assert visible("tab\tand\nline, ü, 猫, 🐈") == "tab\tand\nline, ü, 猫, 🐈"
    assert visible("\u202ex\x1b", keep_direction=True) == "\u202ex\\x1b"
    table = Table(title=NAME)
    table.add_column(NAME, no_wrap=True)
    table.add_row(NAME)
    plain_console(width=300).print(table)
    with ConsoleReporter() as reporter:
        reporter.say(NAME)
        reporter.warn(NAME)
        reporter.progress(NAME, 1, 1, NAME)
    out, err = capsys.readouterr()
    assert out.count(SHOWN) == 6
    assert SHOWN in err
    assert not {"\x1b", "\x07", "\u202e", "\udcff"} & set(out + err)


def test_errors_of_the_command_line(tmp_path, capsys):
    assert run_command(["check", str(tmp_path / "no\x1b[31m.pth")]) != 0
    shown = capsys.readouterr().err
    assert "\\x1b[31m" in shown
    assert "\x1b" not in shown


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_names_of_bytes_are_printed():
    command = f"from stopgrad.cli.shared.console import plain_console as c; c().print({NAME!r})"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SHOWN


def test_names_in_markdown():
    assert code("a.tar") == "`a.tar`"
    assert code("`rm`\n# x") == "`` `rm` # x ``"
    assert prose("k = 20, p < 0.001, resnet10_16: 5%") == "k = 20, p < 0.001, resnet10_16: 5%"
    assert prose("[x](javascript:alert)\n\n# b <script> | `c`") == (
        "\\[x\\](javascript:alert)  # b \\<script> \\| \\`c\\`"
    )


def test_the_card_of_a_run_of_strange_names(tmp_path):
    data = tmp_path / "a`<img src=x onerror=alert(1)>`b"
    write_photos(data, num=4)
    run = RunDir(write_run(tmp_path / "run", data))
    bad = "<script>alert(1)</script> [x](http://evil.example)\n---\nlicense: mit"
    run.write_json("summary.json", {"verdict_words": bad, "knn": {bad: 0.5}, "knn_protocol": bad})
    stopgrad.export(run.path, out=tmp_path / "hub", to="hub-folder")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "``a`<img src=x onerror=alert(1)>`b``" in card
    assert "\n---\nlicense" not in card
    assert "\\<script>" in card
    assert "\n<script>" not in card


@pytest.mark.parametrize("suffix", [".csv", ".npy"])
def test_names_that_a_spreadsheet_takes_for_formulas_are_read_back_as_they_are(tmp_path, suffix):
    """A prefix would make other paths of them, which `search` and a user's own programs could not find."""
    names = ["=cmd()", "+1", "-2+3", "@SUM(A1)", "\t=1", '"=1"']
    out = tmp_path / f"e{suffix}"
    metadata = {"format": FORMAT, "dim": 2, "num_images": len(names), "class_names": names}
    vectors = np.ones((len(names), 2), np.float32)
    write_rows(out, Rows(vectors, lambda row: (names[row], "train", row, names[row]), False, metadata))
    found = read_embeddings(out)
    assert list(found.names) == names
    assert list(found.class_names) == names
