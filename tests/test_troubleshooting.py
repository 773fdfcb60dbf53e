"""What an error prints leads to a section that exists, and every section is printed by something."""

import ast
import errno
import pickle
import re
from pathlib import Path

import pytest

from stopgrad.cli import main
from stopgrad.cli.shared.summary import TOPICS
from stopgrad.errors import ConfigError, DataError, LostProcessError, NonFiniteLossError, StopgradError, topic_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"


def topics_in_the_code():
    """Of errors that are raised, of their classes, of verdicts, of what main makes of others'."""
    found = set(TOPICS.values()) | {"unreadable-images"}
    for path in (ROOT / "src" / "stopgrad").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "topic" and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_fail":
                found |= {c.value for a in node.args[2:] for c in ast.walk(a) if isinstance(c, ast.Constant)}
    found |= {kind.topic for kind in (NonFiniteLossError, LostProcessError)}
    return {topic for topic in found if isinstance(topic, str) and topic}


def test_topics_and_sections_agree():
    sections = re.findall(r"^### (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert {section.lower().replace(" ", "-") for section in sections} == topics_in_the_code()


def fails(error):
    def command():
        raise error

    return command


def out_of_memory():
    """As torch raises it, which this test does not need."""
    kind = type("OutOfMemoryError", (RuntimeError,), {})
    return kind("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


@pytest.mark.parametrize(("error", "code", "lines"), [
    (ConfigError("no.", topic="no-gpu"), 2, ["stopgrad: error: no.", "More: docs/troubleshooting.md#no-gpu"]),
    (ConfigError("no."), 2, ["stopgrad: error: no."]),
    (NonFiniteLossError("it."), 1, ["stopgrad: error: it.", "More: docs/troubleshooting.md#loss-not-finite"]),
    (OSError(errno.ENOSPC, "No space left", "x"), 1, ["stopgrad: error: x: No space left",
                                                     "More: docs/troubleshooting.md#disk-full"]),
    (OSError(errno.EACCES, "Denied", "x"), 1, ["stopgrad: error: x: Denied"]),
    (MemoryError(), 1, ["stopgrad: error: out of memory", "More: docs/troubleshooting.md#out-of-memory"]),
    (out_of_memory(), 1, ["stopgrad: error: out of memory: CUDA out of memory. Tried to allocate 2.00 GiB.",
                          "More: docs/troubleshooting.md#out-of-memory"]),
])  # fmt: skip
def test_the_last_line_says_where_there_is_more(error, code, lines, monkeypatch, capsys):
    monkeypatch.setattr(main, "app", lambda *arguments, **options: fails(error)())
    assert main.run([]) == code
    assert capsys.readouterr().err.splitlines() == lines


def test_other_errors_are_not_hidden(monkeypatch):
    monkeypatch.setattr(main, "app", lambda *arguments, **options: fails(RuntimeError("shapes differ"))())
    with pytest.raises(RuntimeError, match="shapes differ"):
        main.run([])


def test_a_real_error_of_the_command_line(tmp_path, capsys):
    assert main.run(["pretrain", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert "does not exist" in first
    assert last == "More: docs/troubleshooting.md#no-images"


def test_a_topic_outlives_another_error_and_another_process():
    inner = DataError("none", topic="no-images")
    outer = StopgradError("so it failed")
    outer.__cause__ = inner
    assert topic_of(outer) == "no-images"
    assert topic_of(ValueError("x")) == topic_of(None) == ""
    sent = pickle.loads(pickle.dumps(inner))
    assert (str(sent), sent.topic) == ("none", "no-images")
