"""Runs beside each other."""

import json
import shutil

import pytest
from browser import opened_page
from conftest import TINY
from recorder import Recorder

import stopgrad
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import SETTINGS
from stopgrad.errors import ConfigError
from stopgrad.report.groups import WITHOUT_INFLUENCE

PROTOCOL = "k-NN, k = 20, of a test"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    stopgrad.pretrain(out=out, steps=6, **{**TINY, "reporter": Recorder()})
    return out


@pytest.fixture
def make(trained, tmp_path):
    """A copy of a run with other settings and another figure."""

    def made(name, accuracy, **settings):
        run = RunDir(shutil.copytree(trained, tmp_path / name))
        run.write_config(run.read_config().replace(**settings))
        summary = run.read_summary()
        summary |= {"knn": {"trained": accuracy}, "knn_few_labels": {}, "knn_protocol": PROTOCOL}
        run.write_json("summary.json", summary)
        return run

    return made


def test_groups_figures_and_pairs(make):
    guided = [make(f"guided-{seed}", value, seed=seed) for seed, value in ((0, 0.50), (1, 0.60), (2, 0.90))]
    plain = [make(f"plain-{seed}", value, seed=seed, guide="symmetric") for seed, value in ((0, 0.40), (1, 0.56))]
    found = stopgrad.compare([run.path for run in (*guided, *plain)])
    assert [group.seeds for group in found.groups] == [[0, 1, 2], [0, 1]]
    assert [group.settings for group in found.groups] == [{"guide": "nearest_views"}, {"guide": "symmetric"}]
    (row,) = found.figures
    first, second = (row["groups"][group.name] for group in found.groups)
    assert first["mean"] == pytest.approx(2 / 3)
    assert first["num"] == 3
    assert second["std"] == pytest.approx(0.16 / 2**0.5)
    # Seed 2 has no partner.
    paired = row["paired"][found.groups[1].name]
    assert paired["num"] == 2
    assert paired["mean"] == pytest.approx((-0.10 - 0.04) / 2)
    assert json.loads(json.dumps(found.as_json()))["figures"][0]["name"] == "k-NN, trained"
    assert not found.warnings


def test_where_a_run_was_computed_does_not_set_it_apart(make):
    found = stopgrad.compare([make("a", 0.5).path, make("b", 0.6, seed=1, workers=3, cache="off", report=True).path])
    assert len(found.groups) == 1
    assert found.groups[0].settings == {}
    assert set(SETTINGS) > WITHOUT_INFLUENCE


def test_kept_evaluations_are_figures_and_protocols_are_watched(make):
    runs = [make("a-0", 0.5), make("a-1", 0.6, seed=1)]
    for run, k in zip(runs, (20, 200), strict=True):
        run.write_evaluation("knn", {"protocol": f"k = {k}", "scores": {"trained": {"accuracy": 0.5}}})
    found = stopgrad.compare([run.path for run in runs])
    assert [row["name"] for row in found.figures] == ["k-NN, trained", "evaluation k-NN, trained"]
    assert len(found.warnings) == 1
    assert "k = 20" in found.warnings[0]
    assert "k = 200" in found.warnings[0]


def test_what_runs_chose_does_not_set_their_figures_apart(make):
    runs = [make("a-0", 0.5), make("a-1", 0.6, seed=1)]
    for run, l2 in zip(runs, (0.1, 3), strict=True):
        run.write_evaluation("linear", {"protocol": f"L2 {l2}, chosen", "compared_by": "L2, chosen", "scores": {}})
    assert not stopgrad.compare([run.path for run in runs]).warnings


def test_an_unfinished_run_has_curves_and_no_figures(make, tmp_path):
    runs = [make("a-0", 0.5), make("a-1", 0.6, seed=1)]
    runs[1].summary_file.unlink()
    found = stopgrad.compare([run.path for run in runs], out=tmp_path / "page.html")
    assert "a-1" in found.warnings[0]
    assert found.figures[0]["groups"][found.groups[0].name]["num"] == 1


@pytest.mark.slow
def test_the_page(make, tmp_path):
    runs = [make("a-0", 0.5), make("a-1", 0.6, seed=1), make("<b>&", 0.55, lr=0.5)]
    out = tmp_path / "page.html"
    page = stopgrad.compare([run.path for run in runs], out=out).page
    assert page.num_bytes < 4_000_000
    for width in (1200, 390):
        with opened_page(out, width=width) as (tab, errors, requests):
            tab.wait_for_function("document.body.dataset.drawn === 'yes'")
            assert "<b>&" in tab.inner_text("#groups")
            assert "lr" in tab.inner_text("#settings")
            assert "55.0 ± 7.1 (2)" in tab.inner_text("#figures")
            assert "+5.0 (1)" in tab.inner_text("#figures")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert not errors
            assert not requests


def test_bad_input(make, tmp_path):
    one, two = make("a-0", 0.5), make("a-1", 0.6, seed=1)
    with pytest.raises(ConfigError, match="at least 2"):
        stopgrad.compare([one.path])
    with pytest.raises(ConfigError, match="given twice"):
        stopgrad.compare([one.path, one.path / "." / ""])
    with pytest.raises(ConfigError, match="holds no run"):
        stopgrad.compare([one.path, tmp_path])
    (tmp_path / "page.html").touch()
    with pytest.raises(ConfigError, match="exists"):
        stopgrad.compare([one.path, two.path], out=tmp_path / "page.html")
    assert stopgrad.compare([one.path, two.path], out=tmp_path / "page.html", overwrite=True).page is not None
