"""The page of a run, drawn in a real browser where there is one."""

import json
import shutil

import numpy as np
import pytest
import torch
from browser import opened_page
from conftest import TINY
from PIL import Image
from recorder import Recorder

import stopgrad
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cache.store import ImageStore
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.data.sources import ArraySource
from stopgrad.errors import ConfigError, DataError
from stopgrad.loader.shown import PLAIN
from stopgrad.report.parts.images import RunImages, Sample
from stopgrad.report.parts.pictures import _classes, _predicted
from stopgrad.report.run import write_progress_page

MAX_BYTES = 8_000_000
DRAWN = "document.body.dataset.drawn === 'yes'"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run on the digits; tests copy it before they write into it."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    stopgrad.pretrain(out=out, steps=24, monitor_every_epochs=1, **{**TINY, "reporter": Recorder()})
    return out


@pytest.fixture
def run(finished, tmp_path):
    return RunDir(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(autouse=True)
def _small_bank(monkeypatch):
    monkeypatch.setattr("stopgrad.report.parts.pictures.BANK", 200)


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page.html"
    return stopgrad.write_report(finished, out=out, points=100, reporter=Recorder())


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.slow
def test_the_page_stands_alone(page, finished, width):
    assert page.num_bytes == page.path.stat().st_size < MAX_BYTES
    assert page.missing == ()
    summary = RunDir(finished).read_summary()
    parts = (
        "k-NN top-1 accuracy", "Raw pixels, mean-centred", "Map of the features", "Nearest neighbours", "Curves",
        "Effective rank", "How the guide chose", "Classes and confusions", "What training sees",
        summary["verdict_words"], summary["knn_protocol"],
    )  # fmt: skip
    with opened_page(page.path, width=width) as (tab, errors, requests):
        tab.wait_for_function(DRAWN)
        words = tab.inner_text("body")
        assert [part for part in parts if part not in words] == []
        assert tab.locator(".plot .main-svg").count() >= 10
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, "fits the screen"
        assert not errors
        assert not requests


@pytest.mark.slow
def test_pointing_at_a_point_shows_its_image(page):
    with opened_page(page.path) as (tab, errors, _):
        tab.locator("#map").scroll_into_view_if_needed()
        box = tab.locator("#map > canvas").bounding_box()
        x, y = tab.evaluate("document.querySelector('#map > canvas').stopgrad.at(3)")
        tab.mouse.move(box["x"] + x, box["y"] + y)
        tab.wait_for_selector("#map .tip:not([hidden])")
        shown = tab.evaluate(
            "[...document.querySelector('.tip canvas').getContext('2d').getImageData(0, 0, 128, 128).data]"
        )
        assert len(set(shown)) > 5, "a thumbnail, not an empty square"
        assert "digit" in tab.inner_text("#map .tip")
        tab.mouse.move(box["x"] + x, box["y"] - 300)
        tab.wait_for_selector("#map .tip", state="hidden")
        assert not errors


@pytest.mark.slow
def test_printing_draws_the_curves_at_the_width_of_the_sheet(page):
    width = "[...document.querySelectorAll('.plot .main-svg')].map((one) => one.getBoundingClientRect().width)"
    with opened_page(page.path, width=1600) as (tab, errors, _):
        tab.wait_for_function(DRAWN, timeout=60_000)
        before = tab.evaluate(width)
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        tab.wait_for_function(f"({width}).every((one) => one <= 640)")
        assert tab.pdf(format="A4").startswith(b"%PDF")
        tab.wait_for_function(f"JSON.stringify({width}) === '{json.dumps(before, separators=(',', ':'))}'")
        assert not errors


def test_every_untrained_level_of_the_curves_has_its_entry(page):
    with opened_page(page.path) as (tab, _, _):
        tab.wait_for_function(DRAWN, timeout=60_000)
        shown = {
            chart: tab.eval_on_selector_all(
                f'[data-chart="{chart}"] .legendtext', "them => them.map((one) => one.textContent)"
            )
            for chart in ("spread", "knn")
        }
    assert shown == {
        "spread": ["features", "features, untrained", "projections", "projections, untrained"],
        "knn": ["k-NN", "untrained"],
    }


@pytest.mark.slow
def test_the_legend_picks_out_a_class(page):
    with opened_page(page.path) as (tab, errors, _):
        assert tab.locator("#map-legend button").count() == 10
        tab.locator("#map-legend button").nth(4).click()
        assert tab.locator("#map-legend button[aria-pressed=true]").inner_text().startswith("4")
        tab.select_option("#map-colour", label="cluster")
        assert "cluster 1" in tab.inner_text("#map-legend")
        assert not errors


@pytest.mark.slow
def test_ten_thousand_points_stay_smooth(run, tmp_path, monkeypatch):
    """Every point's place is drawn by chance, because t-SNE would take a minute; all the rest is as it is used."""
    digits = open_images("").train
    rng = np.random.default_rng(0)
    pixels = np.stack([digits.read(i % len(digits)) for i in range(10_000)])
    pixels = np.clip(pixels.astype(int) + rng.integers(-9, 9, pixels.shape), 0, 255).astype(np.uint8)
    labels = [digits.label(i % len(digits)) for i in range(10_000)]
    monkeypatch.setattr("stopgrad.report.parts.map.layout_2d", lambda f: (rng.normal(size=(len(f), 2)), "chance"))
    out = tmp_path / "page.html"
    source = ArraySource(pixels, labels, [str(i) for i in range(10)])
    page = stopgrad.write_report(run.path, source, out=out, points=10_000, reporter=Recorder())
    assert page.num_bytes < MAX_BYTES
    with opened_page(out) as (tab, errors, _):
        tab.wait_for_function(DRAWN)
        times = tab.evaluate(
            """async () => {
              const canvas = document.querySelector("#map > canvas"), box = canvas.getBoundingClientRect();
              const draws = [], hovers = [];
              const send = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type,
                { pointerId: 1, clientX: box.left + x, clientY: box.top + y }));
              document.querySelector("#map button").click();
              for (let i = 0; i < 20; i++) {
                canvas.stopgrad.draw();
                draws.push(canvas.stopgrad.frame);
                const began = performance.now();
                send("pointermove", 10 * i, 200);
                hovers.push(performance.now() - began);
                await new Promise(requestAnimationFrame);
              }
                            return { num: canvas.stopgrad.num, draw: Math.min(...draws), hover: Math.min(...hovers) };
            }"""
        )
        assert times["num"] == 10_000
        # Milliseconds, the fastest of twenty: whatever else the machine does counts least.
        assert times["draw"] < 100
        assert times["hover"] < 30
        assert not errors


def test_without_its_images_the_page_says_why(run, tmp_path):
    text = run.config_file.read_text().replace('path = ""', f'path = "{tmp_path / "gone"}"')
    run.config_file.write_text(text)
    page = stopgrad.write_report(run.path, reporter=Recorder())
    assert page.path == run.report_file
    assert len(page.missing) == 1
    assert "no longer exist" in page.missing[0]
    assert "--data" in page.missing[0]
    html = page.path.read_text()
    assert "curves-data" in html
    assert "map-data" not in html
    assert stopgrad.write_report(run.path, "", points=50, reporter=Recorder()).missing == ()
    with pytest.raises(DataError, match="does not exist"):
        stopgrad.write_report(run.path, tmp_path / "elsewhere")


def test_images_in_memory_are_not_taken_for_the_digits(run):
    environment = run.read_environment()
    assert environment["data"] == "scikit-learn's digits"
    run.write_json("environment.json", {**environment, "data": "images in memory"})
    page = stopgrad.write_report(run.path, reporter=Recorder())
    assert "in memory" in page.missing[0]


def test_other_images_are_told_of(run, tmp_path):
    source = ArraySource(np.random.default_rng(0).integers(0, 255, (80, 8, 8), dtype=np.uint8))
    page = stopgrad.write_report(run.path, source, out=tmp_path / "page.html", points=50, reporter=Recorder())
    assert "80 images; the run was trained on 1,437" in page.missing[0]


def test_a_run_in_progress(run):
    """Without encoder the newest checkpoint serves; without either the curves alone."""
    for file in (run.summary_file, run.encoder_file, run.encoder_spec_file):
        file.unlink()
    page = stopgrad.write_report(run.path, points=50, reporter=Recorder())
    assert page.missing == ()
    assert "Running: step 24 of 24" in page.path.read_text()
    for file in run.checkpoint_dir.iterdir():
        file.unlink()
    page = stopgrad.write_report(run.path, points=50, reporter=Recorder())
    assert "no encoder.safetensors and no checkpoint" in page.missing[0]
    run.metrics_file.unlink()
    stopgrad.write_report(run.path, points=50, reporter=Recorder())
    assert "no line in the log yet" in run.report_file.read_text()


@pytest.mark.slow
def test_the_page_while_training_renews_itself(run):
    config = run.read_config()
    write_progress_page(run, config, run.read_summary()["untrained"])
    with opened_page(run.report_file) as (tab, errors, requests):
        tab.wait_for_function(DRAWN)
        assert "renews itself" in tab.inner_text("#freshness")
        assert tab.locator("#map").count() == 0
        assert not errors
        assert not requests
    write_progress_page(run, config, {}, ended=("failed", "the loss is no longer finite at step 7."))
    html = run.report_file.read_text()
    assert "Failed" in html
    assert "step 7." in html
    assert 'id="freshness"' not in html


@pytest.mark.slow
def test_what_is_not_finite_is_a_gap(run):
    lines = run.read_metrics()
    lines[2]["loss"] = float("nan")
    lines[3]["lr"] = float("inf")
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 99, "lo')
    summary = run.read_summary()
    summary["knn"]["untrained"] = float("nan")
    summary["final"]["uniformity"] = float("nan")
    run.write_json("summary.json", summary)
    stopgrad.write_report(run.path, points=50, reporter=Recorder())
    with opened_page(run.report_file) as (tab, errors, _):
        tab.wait_for_function(DRAWN)
        assert not errors
        assert "Untrained network" not in tab.inner_text("#knn")


@pytest.mark.slow
def test_names_are_escaped(run, tmp_path):
    """Class and file names come from whoever made the folder."""
    rng = np.random.default_rng(0)
    evil = [
        "<script>window.bad = 1<",
        "a & \"b\" 'c'",
        "</script><img src=x onerror='window.bad=1'>".replace("/", "\u2215"),
    ]
    names = [evil[0], evil[1], evil[2]]
    for name in names:
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{'<b>' if i else '&amp;'}{i}.png")
    out = tmp_path / "page.html"
    stopgrad.write_report(run.path, tmp_path / "images", out=out, reporter=Recorder())
    with opened_page(out) as (tab, errors, requests):
        tab.wait_for_function(DRAWN)
        assert tab.evaluate("window.bad") is None
        for name in names:
            assert name in tab.inner_text("#map-legend")
        assert not errors
        assert not requests


@pytest.mark.slow
def test_unlabelled_images_are_coloured_by_cluster(tmp_path):
    digits = open_images("").train
    (tmp_path / "flat").mkdir()
    for i in range(150):
        Image.fromarray(digits.read(i)).save(tmp_path / "flat" / f"{i}.png")
    (tmp_path / "flat" / "broken.png").write_bytes(b"no image")
    settings = {**TINY, "report": True, "reporter": Recorder()}
    run = stopgrad.pretrain(tmp_path / "flat", out=tmp_path / "run", steps=4, image_size=12, **settings)
    page = RunDir(run.path).report_file
    with opened_page(page) as (tab, errors, _):
        tab.wait_for_function(DRAWN)
        words = tab.inner_text("body")
        assert "cluster 1" in tab.inner_text("#map-legend")
        assert "nearest to its centre" in words
        assert "1 could not be read" in words
        assert "Classes and confusions" not in words
        assert tab.locator("#map-colour option").count() == 1
        assert not errors


def test_kept_evaluations_stand_on_the_page(run):
    run.write_evaluation("linear", {
        "evaluation": "linear", "protocol": "linear probe, of a test", "num_test": 360,
        "scores": {"trained": {"accuracy": 0.875, "low": 0.8, "high": 0.9, "std": None}},
        "per_class": {"four": {"accuracy": 0.75, "num": 36}},
        "confusions": [{"true": "four", "predicted": "nine", "num": 9, "share": 0.25}],
    })  # fmt: skip
    run.write_evaluation("odd", {"scores": "none"})
    stopgrad.write_report(run.path, points=50, reporter=Recorder())
    html = run.report_file.read_text()
    for text in ("Linear probe", "87.5", "80.0 to 90.0", "linear probe, of a test", "nine"):
        assert text in html
    assert "From the sample on this page" not in html


def test_classes_are_said_to_be_judged_by_the_images_that_vote(generator):
    pixels = np.zeros((50, 8, 8), dtype=np.uint8)
    store = ImageStore(ArraySource(pixels, [0, 1] * 4 + [-1] * 42, ["a", "b"]), 8, kept=list(range(50)))
    features, thumbnails = torch.randn(38, 4, generator=generator), torch.zeros(38, 3, 8, 8, dtype=torch.uint8)
    bank, images = Sample(features, thumbnails, store.labels[:38], range(38), store, PLAIN), RunImages(store, None)
    said, k = _predicted(images, bank, bank, Config())
    # Eight have a label, and none asks itself.
    assert k == 7
    assert (said >= 0).sum() == 8
    origin = _classes(images, bank, bank, said, k, Config())["origin"]
    assert "k = 7," in origin
    assert "a bank of 8 labelled images, of 50 training images; leave-one-out" in origin


def test_constant_features_have_no_map(run):
    from safetensors.torch import load_file, save_file

    weights = {name: tensor * 0 for name, tensor in load_file(run.encoder_file).items()}
    save_file(weights, run.encoder_file)
    stopgrad.write_report(run.path, points=80, reporter=Recorder())
    assert "nearly the same features" in run.report_file.read_text()


@pytest.mark.slow
def test_a_failure_to_draw_does_not_fail_the_run(tmp_path, monkeypatch):
    def fail(*arguments, **more):
        raise RuntimeError("no pencil")

    monkeypatch.setattr("stopgrad.report.run.draw_page", fail)
    recorder = Recorder()
    run = stopgrad.pretrain(out=tmp_path / "run", steps=2, **{**TINY, "report": True, "reporter": recorder})
    assert run.metrics["steps"] == 2
    assert any("no pencil" in text for text in recorder.warned)


@pytest.mark.slow
def test_the_page_is_renewed_while_training(tmp_path, monkeypatch):
    monkeypatch.setattr("stopgrad.train.live_page.SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("stopgrad.train.live_page.MOST_SHARE", 1e9)
    seen = []
    monkeypatch.setattr("stopgrad.report.run.write_progress_page", lambda *a, **more: seen.append(more["ended"]))
    settings = {**TINY, "report": True, "reporter": Recorder()}
    with pytest.raises(stopgrad.stop.Interrupted):
        stopgrad.pretrain(
            out=tmp_path / "run", epochs=500, checkpoint_every_steps=5, time_limit_seconds=1.5, **settings
        )
    assert len(seen) >= 2
    assert seen[0] is None
    assert seen[-1][0] == "stopped"
    # A run goes on whatever it was told of pages.
    again = {**settings, "report": False}
    with pytest.raises(stopgrad.stop.Interrupted):
        stopgrad.pretrain(out=tmp_path / "run", epochs=500, checkpoint_every_steps=5, time_limit_seconds=0.5,
                          resume=True, **again)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"points": 5}, "from 10 to 100,000"),
        ({"points": 10**6}, "from 10 to 100,000"),
        ({"out": "there.html"}, "exists"),
        ({"out": "no/such/page.html"}, "there is no folder"),
        ({"out": "."}, "is a folder"),
    ],
)
def test_bad_input(run, tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").touch()
    with pytest.raises(ConfigError, match=message):
        stopgrad.write_report(run.path, **more)


def test_no_run(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        stopgrad.write_report(tmp_path)
