"""`stopgrad evaluate knn` used wrongly: an exit code, one line that says what to do, and nothing on stdout."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import TINY
from PIL import Image
from sklearn.datasets import load_digits

import stopgrad
from stopgrad.cli.main import run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run on photos/, and other folders that are not what they should be."""
    folder = tmp_path_factory.mktemp("misuse")
    digits = load_digits()

    def put(index, *parts):
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[index] * 15).astype(np.uint8)).save(path)

    for i in range(30):
        put(i, "photos", str(digits.target[i]), f"{i}.png")
        put(i, "others", str(digits.target[i]), f"{i}.png")
    for i in range(3):
        put(i, "flat", f"{i}.png")
        put(i, "one class", "0", f"{i}.png")
        put(i, "strangers", "zebra" if i else "0", f"{i}.png")
        for name in ("broken", "strange"):
            path = folder / name / str(i) / "a.png"
            path.parent.mkdir(parents=True)
            path.write_text("no image")
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("notes")
    (folder / "damaged.ckpt").write_text("damaged")
    small = {"epochs": 1, "image_size": 8, "early_size": 0, "device": "cpu", "stem": "small"}
    with pytest.warns(UserWarning, match="batch_size"):
        stopgrad.pretrain(folder / "photos", out=folder / "run", **TINY, **small)
    for name, content in (("foreign", '{"format": "other"}'), ("unread", "{")):
        shutil.copytree(folder / "run", folder / name)
        (folder / name / "encoder.json").write_text(content)
    return folder


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def assert_refused(capsys, arguments, code, message):
    assert run(["evaluate", "knn", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    if lines[-1].startswith("More: docs/troubleshooting.md#"):
        lines.pop()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("stopgrad: error: ")
    # Versions of cyclopts differ in where they set quotation marks.
    assert message.replace('"', "") in lines[0].replace('"', "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ENCODER"),
        (["run", "another"], "another"),
        (["run", "--kk", "3"], "Did you mean --k?"),
        (["run", "--no-json"], "--json"),
        (["run", "--baselines=perhaps"], "--baselines"),
        (["run", "--k", "0"], "k = 0: must be at least 1"),
        (["run", "--k", "5", "-3"], "k = -3: must be at least 1"),
        (["run", "--k", "1.5"], "'1.5' is not a whole number"),
        (["run", "--k", "many"], "'many' is not a whole number"),
        (["run", "--k", "1,5"], "'1,5' is not a whole number"),
        # Of 30 images that ask each other, an image has 29 neighbours.
        (["run", "--k", "30"], "k = 30: there are only 29 images"),
        (["run", "--test", "others", "--k", "31"], "k = 31: there are only 30 images"),
        (["run", "--temperature", "0"], "temperature = 0.0: must be above 0"),
        (["run", "--temperature", "-0.1"], "must be above 0"),
        (["run", "--temperature", "nan"], "must be above 0"),
        (["run", "--temperature", "warm"], "--temperature"),
        (["run", "--batch-size", "-1"], "--batch-size"),
        (["run", "--batch-size", "2.5"], "'2.5' is not a whole number"),
        (["run", "--seed", "-1"], "--seed"),
        (["run", "--device", "tpu"], "device = 'tpu' is unknown"),
        (["run", "--device", "cuda:99"], "cuda"),
        (["run", "--json", "--k", "0"], "k = 0"),
    ],
)
def test_wrong_usage_exits_2(capsys, arguments, message):
    assert_refused(capsys, arguments, 2, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist: give a run folder"),
        (["empty"], "no encoder.safetensors and no checkpoint"),
        (["photos"], "no encoder.safetensors and no checkpoint"),
        (["notes.txt"], "notes.txt is not a checkpoint"),
        (["damaged.ckpt"], "not a readable checkpoint"),
        (["foreign"], "is not of format"),
        (["unread"], "cannot be loaded"),
        (["run", "--train", "nowhere"], "'nowhere' does not exist: give a folder"),
        (["run", "--train", "notes.txt"], "is a single file"),
        (["run", "--train", "empty"], "holds no images"),
        (["run", "--train", "flat"], "has no labels"),
        (["run", "--train", "one class"], "needs"),
        (["run", "--train", "broken"], "none of 3 images can be read"),
        (["run", "--test", "nowhere"], "does not exist"),
        (["run", "--test", "flat"], "has no labels"),
        (["run", "--test", "strangers"], "'zebra'"),
        (["run", "--test", "strange"], "can be read"),
        (["run", "--json", "--train", "nowhere"], "does not exist"),
    ],
)
def test_what_is_not_there_or_not_labelled_exits_1(capsys, arguments, message):
    assert_refused(capsys, arguments, 1, message)


def test_nothing_wrong_is_kept(capsys, place):
    before = sorted((place / "run").rglob("*"))
    assert run(["evaluate", "knn", "run", "--k", "0"]) == 2
    assert run(["evaluate", "knn", "run", "--train", "nowhere"]) == 1
    assert sorted((place / "run").rglob("*")) == before


def test_images_of_the_run_that_have_gone(capsys, place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace(str(place / "photos"), "/no/such/photos"))
    assert_refused(capsys, [str(tmp_path / "run")], 2, "no longer exist: give --train")


def test_a_few_unreadable_images_are_named_and_left_out(capsys, place, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "0" / "bad.png").write_text("no image")
    assert run(["evaluate", "knn", "run", "--train", str(tmp_path / "photos"), "--k", "3", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in outcome["skipped"]] == [str(tmp_path / "photos" / "0" / "bad.png")]
    assert outcome["num_train"] == 30


@pytest.mark.parametrize("arguments", [["--help"], ["knn", "--help"], ["knn"], ["knn", "run", "--k", "1.5"], ["kn"]])
def test_help_and_usage_need_no_torch(arguments):
    script = (
        "import sys\n"
        "from stopgrad.cli.main import run\n"
        f"code = run(['evaluate', *{arguments!r}])\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == (0 if "--help" in arguments else 2), done.stderr
    assert "Traceback" not in done.stderr
