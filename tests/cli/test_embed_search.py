import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
from photos import write_photos, write_run

from stopgrad.cli.main import run as stopgrad

EMBED_FLAGS = "--out --split --normalise --batch-size --device --strict --overwrite --json"
SEARCH_FLAGS = """
--data --top --duplicates --split --index --encoder --page --batch-size --device --no-keep --overwrite --json
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_photos(root, num=48, splits=("train", "test"))
    return root


@pytest.fixture
def run(tmp_path, data):
    return str(write_run(tmp_path / "run", data))


def flags_of(command):
    done = subprocess.run([sys.executable, "-m", "stopgrad", command, "--help"], capture_output=True, text=True)
    return set(re.findall(r"--[a-z][a-z0-9-]+", done.stdout))


def test_the_flags_are_pinned():
    assert flags_of("embed") >= set(EMBED_FLAGS.split())
    assert flags_of("search") >= set(SEARCH_FLAGS.split())


def test_embed(run, data, tmp_path, capsys):
    out = tmp_path / "e.parquet"
    assert stopgrad(["embed", run, str(data), "--out", str(out)]) == 0
    assert "48 images of" in capsys.readouterr().out
    assert stopgrad(["embed", run, str(data), "--out", str(out)]) == 2
    assert "exists: use --overwrite" in capsys.readouterr().err
    assert stopgrad(["embed", run, "-o", str(out), "--overwrite", "--split", "test", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["num_images"] == 24
    assert captured.out.count("\n") == 1


def test_unreadable_images_are_listed_or_refused(run, tmp_path, capsys):
    write_photos(tmp_path / "d", num=8)[2].write_bytes(b"")
    arguments = ["embed", run, str(tmp_path / "d"), "--out", str(tmp_path / "e.csv")]
    assert stopgrad([*arguments, "--strict"]) == 1
    assert "cannot be read: empty file" in capsys.readouterr().err
    assert stopgrad(arguments) == 0
    assert "Skipped 1 unreadable files" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(run, data, tmp_path, capsys, number):
    out = tmp_path / "e.npy"
    # Slow enough to be hit.
    script = (
        "import sys, time, stopgrad.embeddings.partial as partial\n"
        "add = partial.Partial.add\n"
        "def slowly(self, *rest):\n"
        "    add(self, *rest); print('batch', flush=True); time.sleep(1)\n"
        "partial.Partial.add = slowly\n"
        "from stopgrad.cli.main import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    arguments = ["embed", run, str(data), "--out", str(out), "--batch-size", "5"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "batch\n"
        process.send_signal(number)
        assert process.wait(60) == 3
        assert "the same command resumes from there" in process.stderr.read()
    assert not out.exists()
    assert stopgrad([*arguments, "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["num_resumed"] < 48


def test_search(run, data, tmp_path, capsys):
    query = str(next((data / "test").rglob("*.png")))
    assert stopgrad(["search", run, query, "--top", "3"]) == 0
    output = capsys.readouterr().out
    assert "rank  cosine  label  image" in output
    assert "24 images of" in output
    page = tmp_path / "page.html"
    assert stopgrad(["search", run, query, "--top", "3", "--page", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["answers"][0]["hits"]) == 3
    assert found["page"] == str(page)
    assert page.stat().st_size > 1000
    assert stopgrad(["search", run, query, "--page", str(page)]) == 2
    assert "use --overwrite" in capsys.readouterr().err


def test_duplicates(run, data, tmp_path, capsys):
    folder = tmp_path / "d [bold]"
    shutil.copytree(data, folder)
    shutil.copy(next((folder / "train").rglob("*.png")), folder / "test" / "a" / "copy.png")
    arguments = ["search", run, "--data", str(folder), "--split", "all", "--duplicates", "0.9999"]
    assert stopgrad(arguments) == 0
    output = capsys.readouterr().out
    assert "byte-for-byte copies" in output
    assert "With training and test images both: 1 of the groups" in output
    assert "d [bold]/test/a/copy.png" in output
    assert stopgrad([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_copies"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "run"], "--out"),
        (["embed", "run", "--out", "x.parqet"], "did you mean '.parquet'?"),
        (["embed", "run", "--out", "x.npy", "--batch-size=-1"], "--batch-size -1: must be at least 1, or 0"),
        (["search", "run", "q.png", "--batch-size=-1"], "--batch-size -1: must be at least 1, or 0"),
        (["search", "run"], "give a query"),
        (["search", "run", "q.png", "--duplicates", "0.9"], "give a query"),
        (["search", "run", "--duplicates", "1.5"], "at most 1"),
        (["search", "run", "q.png", "--top", "0"], "at least 1"),
        (["search", "run", "q.png", "--page", "x.pdf"], "must be an .html"),
    ],
)
def test_wrong_usage_comes_at_once(arguments, message):
    script = (
        "import sys\n"
        "from stopgrad.cli.main import run\n"
        f"code = run({arguments!r})\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
