"""The page of an encoder on images, without training; drawn in a real browser where there is one."""

import shutil

import numpy as np
import pytest
import torch
from browser import opened_page
from photos import write_photos, write_run
from PIL import Image
from recorder import Recorder
from torch import nn

import stopgrad
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cache.store import ImageStore
from stopgrad.data.open import open_images
from stopgrad.data.sources import ArraySource, Splits
from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.loader.preprocess import Preprocess
from stopgrad.loader.shown import PLAIN
from stopgrad.report.parts.images import RunImages, Sample
from stopgrad.report.parts.map import feature_map

NASTY = "<img src=x onerror=alert(1)> & \"ü' ‮.png"
WHOLE = Preprocess(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Counted(nn.Module):
    """Pixels as features; counts the images it is given."""

    def __init__(self):
        super().__init__()
        self.num = 0

    def forward(self, images):
        self.num += len(images)
        return images.flatten(1)


def pixels_encoder():
    return Encoder(Counted(), WHOLE, name="pixels")


def written(encoder, data, tmp_path, **more):
    return stopgrad.write_encoder_report(encoder, data, out=tmp_path / "page.html", reporter=Recorder(), **more)


@pytest.fixture
def flat(tmp_path):
    """Digits in one folder, one of them twice and one unreadable."""
    folder = tmp_path / "flat"
    paths = write_photos(folder, num=70, classes=("",))
    shutil.copy(paths[3], folder / NASTY)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def splits(tmp_path):
    """Digits by class, with test images."""
    digits = open_images("")

    def some(source, num):
        pixels = np.stack([source.read(i) for i in range(num)])
        return ArraySource(pixels, [source.label(i) for i in range(num)], source.class_names, "digit")

    return Splits("digits", some(digits.train, 120), some(digits.test, 60))


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.slow
def test_a_flat_folder(flat, tmp_path, width):
    page = written(write_run(tmp_path / "run"), flat, tmp_path)
    assert page.missing == ()
    assert page.num_images == 71
    assert page.knn is None
    assert page.num_bytes == page.path.stat().st_size
    with opened_page(page.path, width=width) as (tab, errors, requests):
        words = tab.inner_text("body")
        parts = (
            "flat: features of run", "71 of 72 images, 1 unreadable", "no labels",
            "Map of the features", "71 points: 71 of 72 images;", "cluster 1", "nearest to its centre",
            "Nearest neighbours", "nearest by cosine among 71 of 72 images", "Near-duplicates",
            "Copies of another, byte for byte: 1.", "Health, without labels", "broken.png", "How to repeat it",
        )  # fmt: skip
        assert [part for part in parts if part not in words] == []
        for absent in ("k-NN", "Classes and confusions", "training image"):
            assert absent not in words
        assert tab.locator("#duplicates li").count() >= 2
        assert tab.locator(f"#duplicates img[alt={_quoted(NASTY, flat)}]").count() == 1
        assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, "fits the screen"
        assert not errors
        assert not requests


def _quoted(name, folder):
    text = str(folder / name).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


@pytest.mark.slow
def test_with_labels_and_test_images(splits, tmp_path):
    page = written(write_run(tmp_path / "run"), splits, tmp_path)
    with opened_page(page.path) as (tab, errors, requests):
        words = tab.inner_text("body")
        parts = (
            "digits: features of run", "180 images", "10 classes", "k-NN top-1 accuracy", "Raw pixels, mean-centred",
            page.knn["protocol"], "60 of 60 test images and 120 of 120 training images", "its commonest classes",
            "% of the same class", "Classes and confusions", "untrained",
        )  # fmt: skip
        assert [part for part in parts if part not in words] == []
        assert tab.locator("#map-legend button").count() == 10
        tab.select_option("#map-colour", label="k-NN right or wrong")
        assert "right" in tab.inner_text("#map-legend")
        assert not errors
        assert not requests


def test_each_image_is_embedded_once(splits, tmp_path):
    encoder = pixels_encoder()
    page = written(encoder, splits, tmp_path)
    assert page.num_images == 180
    # Beside them two views of each training image, for the health.
    assert encoder.backbone.num == 180 + 2 * 120


@pytest.mark.parametrize("has_test", [True, False])
@pytest.mark.slow
def test_the_figures_are_those_of_evaluate_and_check(splits, tmp_path, has_test):
    encoder = pixels_encoder()
    data = splits if has_test else splits.train
    page = written(encoder, data, tmp_path)
    test = splits.test if has_test else None
    outcome = stopgrad.evaluate_knn(encoder, splits.train, test, baselines=False)
    found = outcome.scores["trained"]
    assert (page.knn["accuracy"], page.knn["low"], page.knn["high"]) == pytest.approx(
        (found.accuracy, found.low, found.high)
    )
    assert ("leave-one-out" in page.knn["protocol"]) == (not has_test)
    health = stopgrad.check(encoder, splits.train)
    assert page.health.state == health.state
    assert page.health.measures == pytest.approx(health.measures, rel=1e-4)
    groups = stopgrad.find_duplicates(encoder, threshold=0.97, data=splits, split="all" if has_test else "train")
    again = stopgrad.write_encoder_report(encoder, data, out=tmp_path / "again.html", duplicates=0.97)
    assert len(groups.groups) > 0
    assert [[(m.name, m.label) for m in group] for group in again.duplicates.groups] == [
        [(m.name, m.label) for m in group] for group in groups.groups
    ]


@pytest.mark.slow
def test_an_untrained_network_beside_a_run_from_random_weights_only(splits, tmp_path):
    """Of any other encoder nobody knows how it began."""
    run = RunDir(write_run(tmp_path / "run"))
    page = written(run.path, splits, tmp_path)
    health = stopgrad.check(run.path, splits.train)
    assert page.health.untrained == pytest.approx(health.untrained, rel=1e-4)
    assert page.health.words == health.words
    assert "Not compared" not in page.path.read_text()
    beside = written(run.encoder_file, splits, tmp_path, overwrite=True)
    assert beside.health.untrained is None
    assert "how it began is not known here" in beside.path.read_text()
    run.write_config(run.read_config().replace(init="pretrained"))
    assert written(run.path, splits, tmp_path, overwrite=True).health.untrained is None
    assert "no longer exist" in page.path.read_text()


def test_a_sample_is_said(splits, tmp_path):
    encoder = pixels_encoder()
    page = written(encoder, splits, tmp_path, num_images=90, points=20)
    assert page.num_images == 90
    text = page.path.read_text()
    assert "90 of 180 images, drawn by seed" in text
    assert "20 points: 20 of 60 test images, drawn by seed" in text
    assert "bank of 45 training images, queries 45 test images" in text
    assert "of 90 images (drawn by seed from 180) " in text


def test_the_command_is_on_the_page(flat, tmp_path):
    run = write_run(tmp_path / "run")
    text = written(run, flat, tmp_path, duplicates=0.9).path.read_text()
    assert f"stopgrad report {run} {flat} --out {tmp_path / 'page.html'} --duplicates 0.9</pre>" in text
    # There is none for what is in memory.
    assert "<pre" not in written(pixels_encoder(), flat, tmp_path, overwrite=True).path.read_text()


def test_near_duplicates_across_training_and_test_images(splits, tmp_path):
    pixels = splits.test.images.copy()
    pixels[0] = splits.train.images[7]
    both = Splits("digits", splits.train, ArraySource(pixels, splits.test.labels, splits.test.class_names, "digit"))
    page = written(pixels_encoder(), both, tmp_path, duplicates=1.0)
    assert page.duplicates.num_across == 1
    text = page.path.read_text()
    assert "Groups with training and test images both: 1; where they are the same picture, they flatter" in text


def test_only_so_many_groups_are_shown(tmp_path):
    folder = tmp_path / "flat"
    paths = write_photos(folder, num=30, classes=("",))
    for i, path in enumerate(paths):
        shutil.copy(path, folder / f"copy {i}.png")
    page = written(pixels_encoder(), folder, tmp_path, duplicates=1.0)
    assert len(page.duplicates.groups) == 30
    text = page.path.read_text()
    assert "60 of 60 images are in 30 groups" in text
    assert "The 20 largest of 30 groups" in text
    assert text.count("<h3>Group") == 20


@pytest.mark.parametrize(
    ("num", "missing"),
    [
        (1, ["No health", "No neighbours and no near-duplicates", "No map and no clusters"]),
        (2, ["No health", "No map and no clusters"]),
        (5, ["No health: it takes at least 16 readable images, and there are 5."]),
        (16, []),
    ],
)
def test_few_images(tmp_path, num, missing):
    write_photos(tmp_path / "few", num=num, classes=("",))
    page = written(pixels_encoder(), tmp_path / "few", tmp_path)
    assert len(page.missing) == len(missing)
    assert all(text.startswith(begin) for text, begin in zip(page.missing, missing, strict=True))
    text = page.path.read_text()
    assert ("map-data" in text) == (num >= 3)
    with opened_page(page.path) as (tab, errors, _):
        assert tab.locator(".note").count() == len(missing)
        assert not errors


def test_labels_that_are_too_few(tmp_path):
    write_photos(tmp_path / "two", num=2)
    page = written(pixels_encoder(), tmp_path / "two", tmp_path)
    # Each asks the other, which is of the other class.
    assert page.knn["accuracy"] == 0
    source = ArraySource(np.zeros((3, 8, 8), np.uint8), [-1, -1, 0], ["a", "b"])
    page = written(pixels_encoder(), source, tmp_path, overwrite=True)
    assert page.knn is None
    assert any("No k-NN" in text for text in page.missing)


class Constant(nn.Module):
    def forward(self, images):
        return torch.ones_like(images.flatten(1))


class Broken(nn.Module):
    """Not a number for dark images."""

    def forward(self, images):
        features = images.flatten(1)
        return features.masked_fill(features.mean(dim=1, keepdim=True) < 0.3, torch.nan)


def test_features_that_are_all_alike(splits, tmp_path):
    page = written(Encoder(Constant(), WHOLE), splits, tmp_path)
    assert page.health.state == "collapsed"
    text = page.path.read_text()
    assert "nearly the same features" in text
    assert "one group holds 180 of 180 images" in text
    assert "map-data" not in text


def test_features_that_are_not_finite(splits, tmp_path):
    page = written(Encoder(Broken(), WHOLE), splits, tmp_path)
    assert page.health.state == "not_finite"
    assert page.knn is page.duplicates is None
    assert "NaN or infinite" in page.missing[0]
    assert page.as_json()["duplicates"] is None


def test_a_network_that_does_not_return_a_row_an_image(splits, tmp_path):
    with pytest.raises(ConfigError, match="a row an image"):
        written(Encoder(nn.Identity(), WHOLE), splits, tmp_path)


def test_names_are_escaped(tmp_path):
    evil = ["<script>window.bad = 1<", "a & \"b\" 'c'"]
    write_photos(tmp_path / "<b>data", num=40, classes=evil)
    shutil.copy(next((tmp_path / "<b>data").glob("*/*")), tmp_path / "<b>data" / evil[1] / NASTY)
    page = written(write_run(tmp_path / "<i>run"), tmp_path / "<b>data", tmp_path)
    text = page.path.read_text()
    for tag in ("<b>data", "<i>run", "<script>window", "<img src=x"):
        assert tag not in text
    with opened_page(page.path) as (tab, errors, requests):
        assert tab.evaluate("window.bad") is None
        assert "<b>data: features of <i>run" in tab.inner_text("h1")
        assert evil[0] in tab.inner_text("#map-legend")
        assert not errors
        assert not requests


class Interrupting(Recorder):
    """Somebody presses Ctrl-C while images are embedded."""

    def progress(self, what, done, total, details=""):
        raise KeyboardInterrupt


def test_an_interruption_leaves_no_half_of_a_page(splits, tmp_path):
    out = tmp_path / "page.html"
    with pytest.raises(KeyboardInterrupt):
        stopgrad.write_encoder_report(pixels_encoder(), splits, out=out, reporter=Interrupting())
    assert list(tmp_path.iterdir()) == []
    out.write_text("an earlier page")
    with pytest.raises(KeyboardInterrupt):
        stopgrad.write_encoder_report(pixels_encoder(), splits, out=out, overwrite=True, reporter=Interrupting())
    assert out.read_text() == "an earlier page"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"points": 5}, ConfigError, "from 10 to 100,000"),
        ({"duplicates": 0.0}, ConfigError, "above 0 and at most 1"),
        ({"num_images": 1}, ConfigError, "images = 1: must be at least 2"),
        ({"seed": -1}, ConfigError, "seed = -1"),
        ({"out": "there.html"}, ConfigError, "exists"),
        ({"out": "no/such/page.html"}, ConfigError, "there is no folder"),
        ({"out": "."}, ConfigError, "is a folder"),
        ({"data": "gone"}, DataError, "does not exist"),
        ({"data": "empty"}, DataError, "holds no images"),
        ({"data": "broken"}, DataError, "none of 2 images can be read; the first"),
        ({"data": "there.html"}, DataError, "is a single file"),
        ({"data": "run"}, ConfigError, "is a run, and no images.*stopgrad compare"),
        ({"data": []}, DataError, "there are no images"),
        ({"encoder": "gone"}, CheckpointError, "does not exist"),
        ({"encoder": "photos"}, CheckpointError, "no encoder.safetensors"),
        ({"encoder": "there.html"}, CheckpointError, None),
        ({"device": "quantum"}, ConfigError, "device = 'quantum'"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, more, error, message):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", num=4)
    write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "broken" / name).write_bytes(b"no image")
    (tmp_path / "there.html").write_text("something")
    given = {"encoder": "run", "data": "photos", "out": "page.html", **more}
    with pytest.raises(error, match=message):
        stopgrad.write_encoder_report(**given)
    assert not (tmp_path / "page.html").exists()
    assert (tmp_path / "there.html").read_text() == "something"


def test_the_map_shows_images_from_the_whole_sample(generator):
    """Samples are in the order of the files, which is often that of the classes."""
    labels = torch.arange(400) // 100
    source = ArraySource(np.zeros((400, 8, 8), np.uint8), labels.tolist(), list("abcd"))
    store = ImageStore(source, 8, kept=list(range(400)))
    features = nn.functional.normalize(torch.randn(400, 8, generator=generator), dim=1)
    sample = Sample(features, torch.zeros(400, 3, 8, 8, dtype=torch.uint8), labels, range(400), store, PLAIN)
    drawn, words = feature_map(RunImages(store, None), [("training", sample)], 50, labels)
    assert words.startswith("50 points: 50 of 400 training images, drawn by seed;")
    shown = drawn["data"]["label"]
    assert min(shown.count(label) for label in range(4)) >= 12
    assert drawn["data"]["predicted"] == shown


def test_photos_of_other_sizes_and_kinds(tmp_path, rng):
    """Upright, grey, with a palette: each comes as it is seen."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i, (size, mode) in enumerate([((40, 30), "RGB"), ((9, 50), "L"), ((300, 20), "RGBA"), ((16, 16), "P")] * 5):
        pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i:02}.png")
    page = written(write_run(tmp_path / "run"), folder, tmp_path)
    assert page.missing == ()
    assert page.num_images == 20
