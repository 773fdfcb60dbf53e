import json
import shutil

import numpy as np
import pytest
from PIL import Image
from recorder import Recorder

from stopgrad.cli.main import run
from stopgrad.data.open import open_images
from stopgrad.errors import ConfigError, DataError, Interrupted
from stopgrad.report.parts.forest import figure_name
from stopgrad.studies.conduct import conduct, plan_study
from stopgrad.studies.transfer import names_of


@pytest.fixture(scope="module")
def other_set(tmp_path_factory):
    """Digits again, as files: a set with a name and labels."""
    root = tmp_path_factory.mktemp("sets") / "scans"
    source = open_images("").train
    for index in range(200):
        folder = root / ("train" if index % 4 else "test") / str(source.label(index) % 3)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(source.read(index))).save(folder / f"{index}.png")
    return root


@pytest.mark.slow
def test_encoders_are_judged_on_the_other_set(tmp_path, other_set):
    how = {"arms": ("simsiam_gsg_2v", "simsiam_random_2v"), "epochs": 1, "seeds": 1, "jobs": 2, "out": tmp_path}
    results, failed = conduct(plan_study("transfer", **how), to=[str(other_set)], reporter=Recorder())
    assert failed == 0
    for arm in results["arms"]:
        for figure in ("scans_knn_top1", "scans_linear_top1"):
            assert 1 / 3 < arm["figures"][figure]["mean"] <= 1
    assert {"knn_top1", "linear_top1", "scans_knn_top1", "scans_linear_top1"} == {
        c["figure"] for c in results["comparisons"]
    }
    # What was measured stays, and does not leak into other studies.
    plan = plan_study("transfer", **how)
    kept = plan.store.read(plan.cells[0])["transfer"]["scans"]
    assert "k = 20" in kept["knn_protocol"]
    assert results["transfer_protocols"] == {"scans": kept["knn_protocol"]}
    assert "k-NN on scans, %" in plan.results_file.with_suffix(".html").read_text()
    again, _ = conduct(plan, to=[str(other_set)], reporter=Recorder())
    assert again["arms"] == results["arms"]
    # A limit holds for measuring too, and so what another command has added stays.
    digits = tmp_path / "two" / "digits_again"
    shutil.copytree(other_set, digits)
    with pytest.raises(Interrupted, match="0 of 2 cells measured"):
        conduct(plan, to=[str(digits)], time_limit_seconds=1e-6, reporter=Recorder())
    conduct(plan, to=[str(digits)], reporter=Recorder())
    assert set(plan.store.read(plan.cells[0])["transfer"]) == {"scans", "digits_again"}
    # Another set of that name is measured.
    elsewhere = shutil.copytree(other_set, tmp_path / "other" / other_set.name)
    for path in sorted(elsewhere.glob("test/*/*.png"))[:3]:
        path.unlink()
    conduct(plan, to=[str(elsewhere)], reporter=Recorder())
    assert plan.store.read(plan.cells[0])["transfer"]["scans"]["labels"] != kept["labels"]
    main, _ = conduct(plan_study("main", **how), reporter=Recorder())
    assert "scans_knn_top1" not in main["arms"][0]["figures"]
    assert json.loads(plan.results_file.read_text())["comparisons"]


def test_sets_that_cannot_be_transferred_to(tmp_path, other_set):
    with pytest.raises(ConfigError, match="give --to"):
        names_of([])
    with pytest.raises(ConfigError, match="two sets of the name 'scans'"):
        names_of([str(other_set), str(other_set)])
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("L", (8, 8)).save(flat / "one.png")
    with pytest.raises(DataError, match="no labels"):
        names_of([str(flat)])
    assert run(["study", "main", "--to", str(other_set), "--out", str(tmp_path / "s")]) == 2
    assert not (tmp_path / "s").exists()


def test_the_figures_of_other_sets_have_names():
    assert figure_name("scans_knn_top1") == "k-NN on scans"
    assert figure_name("knn_top1") == "k-NN"
