"""Pages of names, labels and reasons that were made to do harm, in a real browser: nothing runs, nothing is fetched."""

import csv
import json
import os
import re
import shutil
import sys
from xml.etree import ElementTree

import pytest
from browser import opened_page
from jinja2 import DictLoader
from markupsafe import Markup
from photos import write_photos, write_run
from recorder import Recorder

import stopgrad
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.report import page as pages
from stopgrad.report.compare import compare
from stopgrad.report.page import SCRIPTS, content_policy, write_page
from stopgrad.report.search import write_search_page
from stopgrad.report.study import draw_study

HOSTILE = (
    "<script>alert(1)<", "script>", "\"><img src=x onerror=alert(2)>", "javascript:alert(3)", "' onload='alert(4)",
    "{{ 7 * 7 }}", "<a href='http:evil.example'>", "\u202egnp.exe", "\x1b[31mred", "]]><!--", "&lt;b&gt;",
)  # fmt: skip
ENDS_SCRIPT = "</script><script>window.ran = 5</script>"
LISTENS = """
    window.ran = 0;
    window.alert = () => { window.ran += 1; };
    document.addEventListener("securitypolicyviolation", (event) => console.error(event.violatedDirective));
"""


def words_of(path, *, drawn=False):
    """Open a page: nothing of it ran but its own scripts, and nothing was fetched; its words."""
    with opened_page(path) as (tab, errors, requests):
        tab.add_init_script(LISTENS)
        tab.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
        tab.reload()
        if drawn:
            tab.wait_for_function("document.body.dataset.drawn === 'yes'", timeout=60_000)
        tab.wait_for_timeout(200)
        assert tab.evaluate("window.ran") == 0
        assert tab.locator("a[href], iframe, object, embed, form, img[onerror]").count() == 0
        assert tab.evaluate("[...document.images].every((image) => image.src.startsWith('data:'))")
        words = tab.inner_text("body")
    assert not errors
    assert not requests
    return words


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Photos in folders and files of such names, some of them unreadable, and a run of a random network on them."""
    root = tmp_path_factory.mktemp("hostile")
    photos = write_photos(root / "seed", num=24)
    data = root / HOSTILE[2] / "data"
    for number, name in enumerate(HOSTILE[:3]):
        folder = data / name
        folder.mkdir(parents=True)
        for place, title in enumerate(HOSTILE):
            shutil.copy(photos[(number * 7 + place) % len(photos)], folder / f"{title}.png")
        (folder / f"{HOSTILE[2]}{HOSTILE[8]} broken.png").write_bytes(b"no image")
    if sys.platform == "linux":
        shutil.copy(photos[0], os.fsencode(folder) + b"/\xff\xfe.png")
    return write_run(root / f"run {HOSTILE[2]}", data), data


@pytest.mark.slow
def test_the_page_of_an_encoder(hostile, tmp_path):
    run, data = hostile
    out = tmp_path / "page.html"
    stopgrad.write_encoder_report(run, data, out=out, reporter=Recorder())
    words = words_of(out)
    assert HOSTILE[2] in words
    assert "\\x1b[31mred broken.png" in words


@pytest.mark.slow
def test_picking_and_saving_images_of_such_names(hostile, tmp_path):
    run, data = hostile
    out = tmp_path / "page.html"
    stopgrad.write_encoder_report(run, data, out=out, reporter=Recorder())
    with opened_page(out) as (tab, errors, requests):
        tab.evaluate(LISTENS)
        for number, label in enumerate(HOSTILE):
            tab.evaluate(f"window.stopgradImages.pick([{number}], true)")
            tab.fill("#pick-label", label)
            tab.press("#pick-label", "Enter")
        tab.fill("#find", "script")
        tab.wait_for_function("document.getElementById('found').textContent")
        tab.click("#pick-found")
        tab.evaluate("document.querySelector('#map').scrollIntoView({ block: 'end' })")
        tab.focus("#map > canvas")
        tab.keyboard.press("ArrowRight")
        with tab.expect_download() as download:
            tab.click("#save-picked")
        download.value.save_as(tmp_path / "picked.csv")
        assert tab.evaluate("window.ran") == 0
        assert tab.locator("a[href], iframe, object, embed, form, img[onerror]").count() == 0
    assert not errors
    assert not requests
    with open(tmp_path / "picked.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert all(os.path.isfile(path) for path, *_ in rows)
    assert HOSTILE[2] in {row[-1] for row in rows}


@pytest.mark.slow
def test_the_page_of_a_run(hostile, tmp_path):
    run = RunDir(shutil.copytree(hostile[0], tmp_path / f"run {HOSTILE[2]}"))
    bad = HOSTILE[2] + ENDS_SCRIPT
    lines = [{"step": step, "loss": 1.0 / step, "epoch": step, "seconds": step, bad: 1.0} for step in (1, 2, 3)]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.write_json(
        "environment.json", {"command": [bad, "\x1b]0;x\x07"], "data": bad, "versions": {bad: bad}, bad: bad}
    )
    run.write_json("summary.json", {
        "verdict": "learnt", "verdict_words": bad, "skipped": [{"name": bad, "reason": bad}], "num_images": 3,
    })  # fmt: skip
    page = stopgrad.write_report(run.path, reporter=Recorder(), points=20)
    assert ENDS_SCRIPT in words_of(page.path, drawn=True)


@pytest.mark.slow
def test_the_page_of_a_search(hostile, tmp_path):
    run, data = hostile
    found = stopgrad.search(run, data / HOSTILE[1] / f"{HOSTILE[3]}.png", top=8)
    write_search_page(found, tmp_path / "page.html")
    assert HOSTILE[3] in words_of(tmp_path / "page.html")


@pytest.mark.slow
def test_a_comparison(hostile, tmp_path):
    runs = [shutil.copytree(hostile[0], tmp_path / f"{number} {HOSTILE[2]}") for number in (1, 2)]
    compare(runs, out=tmp_path / "page.html")
    assert HOSTILE[2] in words_of(tmp_path / "page.html")


def study_of(bad):
    """Results of a study in which every text is one that would do harm."""
    figure = {"mean": 0.4, "std": 0.01, "values": [0.39, 0.41]}
    curve = [{"epoch": step, "passes": 100 * step, "seconds": step, "knn_top1": 0.1 * step} for step in (1, 2, 3)]
    arms = [
        {"name": f"{bad}{number}", "words": f"{bad} {number}", "settings": {bad: bad, "guide": f"{number}{bad}"},
         "epochs": 3, "passes_an_image": 4, "passes": 300.0, "seeds": [0, 1], "seconds": 3.0,
         "figures": {"knn_top1": figure, f"{bad}_knn_top1": figure}, "untrained_knn": 0.2, "pixels_knn": 0.3,
         "verdicts": {bad: 1, "learnt": 1}, "curve": curve, "failed": [{"seed": 1, "error": bad}]}
        for number in (1, 2)
    ]  # fmt: skip
    difference = {"difference": 0.01, "interval": [-0.01, 0.03], "n": 2, "verdict": bad, "question": bad}
    comparisons = [
        {"arm": f"{bad}1", "rival": f"{bad}2", "figure": name, **difference} for name in ("knn_top1", f"{bad}_knn_top1")
    ]
    texts = ("study", "scale", "title", "question", "images", "protocol", "command")
    return {
        **dict.fromkeys(texts, bad), "environment": {"versions": {bad: bad}, "device": bad, bad: bad},
        "complete": False, "num_cells": 5, "num_done": 4, "arms": arms, "comparisons": comparisons, "resolution": 0.01,
        "transfer_protocols": {bad: bad},
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("bad", [ENDS_SCRIPT, HOSTILE[2], HOSTILE[5]])
def test_a_study_and_its_figure(tmp_path, bad):
    page, figure = tmp_path / "page.html", tmp_path / "figure.svg"
    draw_study(study_of(bad), page, figure)
    assert bad in words_of(page, drawn=True)
    root = ElementTree.parse(figure).getroot()
    assert bad in "".join(root.itertext())
    for element in root.iter():
        assert element.tag.rpartition("}")[2] not in ("script", "foreignObject", "image", "a", "iframe", "style")
        assert not [name for name in element.attrib if name.lower().startswith("on") or name.endswith("href")]


@pytest.mark.slow
def test_the_policy_holds_by_itself(tmp_path, monkeypatch):
    """Were a name not escaped, a browser would still not run it."""
    base = pages._TEMPLATES.get_template("base.html")
    sources = {name: pages._TEMPLATES.loader.get_source(pages._TEMPLATES, name)[0] for name in SCRIPTS}
    sources["x.html"] = "{% extends base %}{% block body %}{{ bad }}{% endblock %}"
    monkeypatch.setattr(pages._TEMPLATES, "loader", DictLoader(sources))
    bad = Markup("<script>window.ran = 1</script><img src=http://127.0.0.1:1/x onerror='window.ran = 2'>")
    write_page(tmp_path / "page.html", "x.html", title="x", base=base, bad=bad)
    with opened_page(tmp_path / "page.html") as (tab, errors, _):
        tab.wait_for_timeout(300)
        assert tab.evaluate("window.ran === undefined")
        assert sum("Content Security Policy" in error for error in errors) >= 3


def test_the_policy_allows_what_pages_need_alone():
    names = [name for name in pages._TEMPLATES.list_templates() if name.endswith(".js")]
    assert set(SCRIPTS) == set(names)
    policy = content_policy()
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.count("'sha256-") == len(SCRIPTS) + 1
    assert not re.search(r"https?:|\*|unsafe-eval", policy)
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    for name in names:
        script = pages._TEMPLATES.get_template(name).render()
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", script), "it would be shown otherwise, and have another digest"
