"""Finding, picking and labelling images on a page, and the list that is saved: in a real browser, and read back."""

import csv
import os
import shutil

import numpy as np
import pytest
import torch
from browser import opened_page
from conftest import TINY
from photos import write_photos, write_run
from recorder import Recorder
from torch import nn

import stopgrad
from stopgrad.cache.store import ImageStore
from stopgrad.cli.main import run as run_cli
from stopgrad.data.open import open_images
from stopgrad.data.sources import ArraySource
from stopgrad.loader.shown import PLAIN
from stopgrad.report.listed import Listed, packed
from stopgrad.report.parts import layout
from stopgrad.report.parts import map as of_map
from stopgrad.report.parts.images import RunImages, Sample

NASTY = ('a,"b" =x.png', "two\nlines.png", "<img src=x onerror=alert(1)>.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of a random network, photos in two splits and two classes, and the page of both."""
    root = tmp_path_factory.mktemp("picking")
    paths = write_photos(root / "photos", num=160, splits=("train", "test"))
    for name in NASTY:
        shutil.copy(paths[-1], paths[-1].with_name(name))
    if os.name == "posix":
        shutil.copy(paths[-1], os.fsencode(paths[-1].parent) + b"/\xff\xfe.png")
    run = write_run(root / "my run", root / "photos")
    page = stopgrad.write_encoder_report(
        run, root / "photos", out=root / "page.html", duplicates=0.9999, reporter=Recorder()
    )
    return run, root / "photos", page.path


def saved(tab, path):
    """Press the button, and read what came."""
    with tab.expect_download() as download:
        tab.click("#save-picked")
    assert download.value.suggested_filename == "picked.csv"
    download.value.save_as(path)
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def drag(tab, *corners):
    """Draw a line over the map, in shares of its sides."""
    tab.evaluate("document.querySelector('#map').scrollIntoView({ block: 'end' })")
    box = tab.locator("#map > canvas").bounding_box()
    for number, (x, y) in enumerate(corners):
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if not number:
            tab.mouse.down()
    tab.mouse.up()


WHOLE = ((0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99))


def test_a_text_finds_images_in_all_parts_of_the_page(made):
    _, photos, page = made
    with opened_page(page) as (tab, errors, requests):
        rows, groups = tab.locator("#neighbours tr[data-filtered]"), tab.locator("#duplicates .group")
        all_rows = rows.count()
        assert all_rows == 10
        assert groups.count() >= 1
        tab.fill("#find", "TEST/a  digit")
        tab.wait_for_function("document.getElementById('found').textContent")
        assert tab.inner_text("#found") == "40 of 164 images"
        shown = [row for row in rows.all() if row.is_visible()]
        assert 0 < len(shown) <= all_rows
        for row in shown:
            assert row.locator(".tick:not(.unmatched)").count() >= 1
        # What is not found lies faint on the map, and the pointer passes over it.
        assert tab.evaluate("""() => {
          const images = window.stopgradImages, canvas = document.querySelector("#map > canvas");
          const box = canvas.getBoundingClientRect();
          for (let i = 0; i < images.num; i++) {
            const [x, y] = canvas.stopgrad.at(i);
            canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + x, clientY: box.top + y }));
            const found = canvas.stopgrad.hovered();
            if (found >= 0 && !images.isFound(found)) return false;
          }
          return true;
        }""")
        tab.click("#pick-found")
        assert tab.inner_text("#picked") == "40 picked"
        tab.fill("#find", "no such")
        tab.wait_for_function("document.getElementById('found').textContent.startsWith('0 of')")
        assert not any(group.is_visible() for group in groups.all())
        tab.fill("#find", "")
        tab.wait_for_function("!document.getElementById('found').textContent")
        assert all(row.is_visible() for row in rows.all())
        assert str(photos) not in tab.inner_text("#map"), "only what lies below the data set's folder is searched"
        assert not errors
        assert not requests


@pytest.mark.slow
def test_picked_images_are_saved_and_read_back(made, tmp_path):
    """Labelled on the page, they are what an evaluation and a training take."""
    run, _, page = made
    with opened_page(page) as (tab, errors, requests):
        assert tab.locator("#save-picked").is_disabled()
        for name, text in (("left", "train/a"), ("right", "train/b digit")):
            tab.fill("#find", text)
            tab.wait_for_function("document.getElementById('found').textContent.startsWith('40 of')")
            tab.click("#pick-points")
            drag(tab, *WHOLE)
            tab.click("#pick-points")
            tab.fill("#pick-label", name)
            tab.press("#pick-label", "Enter")
        tab.fill("#find", "")
        assert tab.inner_text("#picked") == "80 picked: left 40, right 40"
        # One more, of the test images, without a label of its own.
        tab.evaluate("document.querySelector('#neighbours input.pick').click()")
        assert tab.inner_text("#picked") == "81 picked: left 40, right 40"
        rows = saved(tab, tmp_path / "picked.csv")
        assert "few-label" in tab.inner_text("#after-save")
        assert not errors
        assert not requests
    assert rows[0] == ["path", "split", "label"]
    assert [row[1] for row in rows[1:]].count("train") == 80
    assert {row[2] for row in rows[1:] if row[1] == "train"} == {"left", "right"}
    assert all(os.path.isfile(row[0]) for row in rows[1:])
    (test,) = [row for row in rows if row[1] == "test"]
    assert test[2] == os.path.basename(os.path.dirname(test[0]))
    splits = open_images(tmp_path / "picked.csv")
    assert (len(splits.train), list(splits.train.class_names)[-2:]) == (80, ["left", "right"])

    only_train = tmp_path / "labels.csv"
    kept = ("label", "left", "right")
    only_train.write_text("".join(f"{path},{label}\n" for path, _, label in rows if label in kept))
    few = ["evaluate", "few-label", str(run), "--train", str(only_train), "--labels-per-class", "5", "--no-baselines"]
    assert run_cli(few) == 0
    settings = {**TINY, "image_size": 12, "reporter": Recorder()}
    trained = stopgrad.pretrain(tmp_path / "picked.csv", out=tmp_path / "run", steps=2, **settings)
    assert trained.metrics["num_images"] == 80


@pytest.mark.slow
def test_any_name_is_read_back(made, tmp_path):
    _, photos, page = made
    with opened_page(page) as (tab, errors, _):
        tab.fill("#find", "train/b")
        tab.wait_for_function("document.getElementById('found').textContent.startsWith('44 of')")
        tab.click("#pick-found")
        rows = saved(tab, tmp_path / "picked.csv")
        assert not errors
    folder = photos / "train" / "b"
    assert {row[0] for row in rows[1:]} == {str(folder / name) for name in os.listdir(folder)}
    assert len(open_images(tmp_path / "picked.csv").train) == 44


@pytest.mark.slow
def test_a_point_is_picked_by_click_and_again_left_out(made, tmp_path):
    with opened_page(made[2]) as (tab, errors, _):
        tab.evaluate("document.querySelector('#map').scrollIntoView({ block: 'end' })")
        box = tab.locator("#map > canvas").bounding_box()
        x, y = tab.evaluate("document.querySelector('#map > canvas').stopgrad.at(3)")
        at = (box["x"] + x, box["y"] + y)
        tab.mouse.click(*at)
        assert tab.inner_text("#picked") == "0 picked", "without Pick or Shift it only looks"
        tab.keyboard.down("Shift")
        tab.mouse.click(*at)
        assert tab.inner_text("#picked") == "1 picked"
        assert "picked" in tab.inner_text("#map .tip")
        tab.mouse.click(*at)
        tab.keyboard.up("Shift")
        assert tab.inner_text("#picked") == "0 picked"
        # Every place of the page where an image stands has the same state.
        tick = tab.locator("#duplicates input.pick").first
        number = tick.get_attribute("value")
        tick.check(force=True)
        assert tab.evaluate(f"[...document.querySelectorAll('input.pick[value=\"{number}\"]')].every((t) => t.checked)")
        assert tab.evaluate(f"window.stopgradImages.isPicked({number})")
        tab.click("#clear-picked")
        assert not tick.is_checked()
        # Test images alone are one set, so that commands do not miss training images.
        tab.fill("#find", "test/a")
        tab.wait_for_function("document.getElementById('found').textContent.startsWith('40 of')")
        tab.click("#pick-found")
        rows = saved(tab, tmp_path / "picked.csv")
        assert rows[0] == ["path", "label"]
        assert len(open_images(tmp_path / "picked.csv").train) == 40
        assert not errors


@pytest.mark.slow
def test_the_keyboard_reaches_everything(made):
    with opened_page(made[2]) as (tab, errors, _):
        tab.focus("#find")
        tab.keyboard.type("train")
        tab.wait_for_function("document.getElementById('found').textContent.startsWith('84 of')")
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.id") == "pick-found"
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus can be seen"
        tab.focus("#map > canvas")
        seen = set()
        for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft"):
            tab.keyboard.press(key)
            seen.add(tab.evaluate("document.querySelector('#map > canvas').stopgrad.hovered()"))
        assert len(seen) >= 3
        assert all(tab.evaluate(f"window.stopgradImages.isFound({point})") for point in seen)
        assert tab.locator("#map .tip").is_visible()
        tab.keyboard.press("Enter")
        assert tab.inner_text("#picked") == "1 picked"
        tab.keyboard.press("Escape")
        assert not tab.locator("#map .tip").is_visible()
        # A tick is seen when it has the focus.
        tab.focus("#neighbours input.pick")
        tab.keyboard.press("Space")
        assert tab.inner_text("#picked") in ("2 picked", "0 picked")
        names = "[...document.querySelectorAll('button, select, input')].filter((one) => !(one.textContent.trim() ||"
        names += " one.ariaLabel || one.labels?.length)).map((one) => one.outerHTML)"
        assert tab.evaluate(names) == [], "each control has a name"
        assert tab.evaluate("[...document.images].every((image) => image.alt)")
        assert not errors


@pytest.mark.slow
def test_images_that_are_no_files_say_so(made, tmp_path):
    source = open_images("").train
    pixels = np.stack([source.read(i) for i in range(40)])
    page = stopgrad.write_encoder_report(
        made[0], ArraySource(pixels, [i % 2 for i in range(40)], ["a", "b"], "digit"), out=tmp_path / "page.html",
        reporter=Recorder(),
    )  # fmt: skip
    with opened_page(page.path) as (tab, errors, _):
        tab.fill("#find", "digit 7 b")
        tab.wait_for_function("document.getElementById('found').textContent.startsWith('4 of')")
        tab.click("#pick-found")
        assert saved(tab, tmp_path / "picked.csv") == [
            ["name", "label"], *([f"digit {number}", "b"] for number in (7, 17, 27, 37))
        ]  # fmt: skip
        assert "no files of their own" in tab.inner_text("#after-save")
        assert not errors


def test_numbers_are_packed():
    import base64

    def unpacked(value):
        numbers = np.frombuffer(base64.b64decode(value["packed"]), f"<u{value['bytes']}")
        return (numbers.astype(np.int64) - 1).tolist()

    for numbers, size in (([-1, 0, 254], 1), ([-1, 255, 65_534], 2), ([65_535, 10**6], 4)):
        assert packed({"a": [numbers, "x"]})["a"][1] == "x"
        found = packed(numbers)
        assert found["bytes"] == size
        assert unpacked(found) == numbers
    for left in ([], [1.5], [True], [-2], ["1"], None, 7):
        assert packed(left) == left


def test_an_image_has_one_number(tmp_path):
    (path,) = write_photos(tmp_path, num=1, classes=("a",))
    listed = Listed(("a", "b"))
    assert [listed.number(str(path), 0, "training"), listed.number(str(path), 0, "test")] == [0, 1]
    assert listed.number(str(path), 0, "train") == 0
    data = listed.as_data("my run")
    assert (data["root"], data["files"], data["split"]) == (str(tmp_path / "a"), [path.name] * 2, [1, 2])
    assert data["encoder"] == "'my run'"
    assert Listed(()).for_page("") == {"listed": None, "images_script": None}


def test_of_many_points_some_are_arranged_and_some_have_pictures(generator, monkeypatch):
    monkeypatch.setattr(layout, "MOST_ARRANGED", 100)
    monkeypatch.setattr(of_map, "MOST_PICTURES", 30)
    group = torch.arange(600) % 3
    features = nn.functional.normalize(5 * torch.eye(8)[group] + torch.randn(600, 8, generator=generator), dim=1)
    source = ArraySource(np.zeros((600, 8, 8), np.uint8), group.tolist(), list("abc"))
    store = ImageStore(source, 8, kept=list(range(600)))
    thumbnails = torch.zeros(600, 3, 8, 8, dtype=torch.uint8)
    sample = Sample(features, thumbnails, group, range(600), store, PLAIN)
    listed = Listed(list("abc"))
    drawn, words = of_map.feature_map(RunImages(store, None), [("training", sample)], 600, None, listed)
    assert "of 100, the others at the median of their nearest 10" in words
    assert "30 of them, evenly spaced, have a picture here" in words
    data = drawn["data"]
    assert len(data["pictured"]) == 30
    assert data["columns"] ** 2 >= 30
    assert len(listed) == len(data["x"]) == 600
    # The others stand among their own kind.
    places = np.array([data["x"], data["y"]]).T.astype(float)
    centres = np.stack([places[group == g].mean(axis=0) for g in range(3)])
    assert (np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1) == group.numpy()).mean() > 0.95
    found = np.array(data["colourings"][-1]["group"])
    assert sum(group["count"] for group in data["colourings"][-1]["groups"]) == 600
    assert len(set(found.tolist())) == 10
