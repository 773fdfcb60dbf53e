"""The flags that say what an encoder's file does not tell, on every command that takes an encoder."""

import json
import re
import subprocess
import sys

import pytest
import timm
import torch
from photos import write_photos, write_run
from safetensors.torch import save_file

from stopgrad import load_encoder
from stopgrad.cli.main import run as stopgrad

FLAGS = {"--backbone", "--stem", "--prefix", "--image-size", "--mean", "--std", "--partial"}
COMMANDS = [
    *(["evaluate", kind] for kind in ("knn", "linear", "few-label", "linear-augmented", "finetune")),
    ["embed"], ["search"], ["check"], ["export"],
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_photos(root, num=24, splits=("train", "test"))
    return root


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """Weights whose network nothing tells but its name."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), file)
    return str(file)


@pytest.fixture
def run(tmp_path, data):
    return str(write_run(tmp_path / "run", data))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_flags_are_pinned(command):
    done = subprocess.run([sys.executable, "-m", "stopgrad", *command, "--help"], capture_output=True, text=True)
    assert set(re.findall(r"--[a-z][a-z0-9-]+", done.stdout)) >= FLAGS


VIT = ["--backbone", "vit_tiny_patch16_224", "--image-size", "32"]


@pytest.mark.slow
def test_a_file_that_needs_its_networks_name(vit, data, tmp_path, capsys):
    out = str(tmp_path / "e.parquet")
    assert stopgrad(["embed", vit, str(data), "-o", out, *VIT, "--mean", "0.4", "0.5", "0.6"]) == 0
    assert "vectors of 192 numbers" in capsys.readouterr().out
    # What embeds a query later is the same encoder, from what the file of embeddings says.
    query = str(next((data / "test").glob("*/*")))
    assert stopgrad(["search", out, query, "--top", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "32 px, mean 0.4,0.5,0.6, std 0.5" in found["encoder"]
    assert stopgrad(["search", vit, query, "--data", str(data), "--top", "2", "--json", *VIT]) == 0
    assert "mean 0.5" in json.loads(capsys.readouterr().out)["encoder"]


@pytest.mark.parametrize("mean", [["0.4", "0.5", "0.6"], ["0.4,0.5,0.6"], ["0.4,", "0.5,", "0.6"]])
def test_three_numbers_in_every_way_they_are_written(vit, data, tmp_path, capsys, mean):
    out = str(tmp_path / "e.npy")
    assert stopgrad(["embed", vit, str(data), "-o", out, "--json", *VIT, "--mean", *mean, "--std", "0.25"]) == 0
    assert "mean 0.4,0.5,0.6, std 0.25" in json.loads(capsys.readouterr().out)["encoder"]


@pytest.mark.slow
def test_without_the_name_the_flag_is_asked_for(vit, data, capsys):
    assert stopgrad(["evaluate", "knn", vit, "--train", str(data)]) == 1
    error = capsys.readouterr().err
    assert re.search(r"fits several networks.*--backbone NAME.*vit_tiny_patch16_224 \(mean 0\.5, std 0\.5\)", error)
    # The message, and where there is more.
    assert error.count("\n") == 2


def test_a_run_at_another_size_keeps_its_outcome(run, data, capsys):
    arguments = ["evaluate", "knn", run, "--image-size", "24", "--json", "--no-baselines"]
    assert stopgrad(arguments) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert "centre 24 x 24" in outcome["protocol"]
    kept = load_encoder(run)
    assert kept.preprocess.size != 24
    with open(f"{run}/evaluations/knn.json", encoding="utf-8") as file:
        assert json.load(file)["protocol"] == outcome["protocol"]


def test_a_runs_own_images_and_its_cache_of_embeddings(run, data, tmp_path, capsys):
    assert stopgrad(["embed", run, "-o", str(tmp_path / "e.npy"), "--image-size", "24"]) == 0
    capsys.readouterr()
    query = str(next((data / "test").glob("*/*")))
    for again in (False, True):
        assert stopgrad(["search", run, query, "--top", "2", "--image-size", "24"]) == 0
        assert ("Embeddings kept in" in capsys.readouterr().out) is not again
    assert stopgrad(["search", run, query, "--top", "2"]) == 0
    assert "Embeddings kept in" in capsys.readouterr().out


def test_export_with_the_flags(vit, tmp_path, capsys):
    arguments = ["export", vit, "--to", "safetensors", "--out", str(tmp_path / "own.safetensors"), "--json", *VIT]
    assert stopgrad(arguments) == 0
    capsys.readouterr()
    spec = load_encoder(tmp_path / "own.safetensors").spec
    assert (spec.backbone, spec.image_size, spec.mean) == ("vit_tiny_patch16_224", 32, (0.5, 0.5, 0.5))


def test_a_hub_folder_of_a_run_at_another_size_has_the_runs_card(run, tmp_path, capsys):
    out = tmp_path / "hub"
    assert stopgrad(["export", run, "--to", "hub-folder", "--out", str(out), "--image-size", "24"]) == 0
    capsys.readouterr()
    plain = tmp_path / "plain"
    assert stopgrad(["export", run, "--to", "hub-folder", "--out", str(plain)]) == 0
    assert load_encoder(out).preprocess.size == 24
    titles = [re.findall("^#.*", (folder / "README.md").read_text(), re.MULTILINE)[1:] for folder in (out, plain)]
    assert titles[0] == titles[1]


def test_partial(vit, data, tmp_path, capsys):
    arguments = ["embed", vit, str(data), "-o", str(tmp_path / "e.csv"), "--backbone", "vit_tiny_r_s16_p8_224"]
    assert stopgrad(arguments) == 1
    assert "What fits is taken with --partial" in capsys.readouterr().err
    assert stopgrad([*arguments, "--partial"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["check", "RUN", "--backbone", "resnet18"], 2, "backbone cannot be chosen here, it is a resnet10_16"),
        (["check", "RUN", "--prefix", "x"], 2, "prefix cannot be chosen here"),
        (["check", "RUN", "--image-size", "big"], 2, "not a whole number"),
        (["check", "RUN", "--image-size", "2"], 2, "must be a whole number of at least 4"),
        (["check", "RUN", "--mean", "0.5", "0.5"], 2, "three numbers, as 0.5,0.5,0.5"),
        (["check", "RUN", "--std", "0"], 2, "three numbers above 0"),
        (["check", "timm:resnet81", "--image-size", "32"], 1, "did you mean"),
        (["search", "e.parquet", "q.png", "--backbone", "resnet18"], 2, r"name its encoder too \(--encoder\)"),
    ],
)
def test_flags_that_cannot_be_followed(run, arguments, code, message, capsys):
    assert stopgrad([run if argument == "RUN" else argument for argument in arguments]) == code
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert captured.out == ""
