"""What a page looks like on paper, on a phone, in the dark: colours by their contrast, the rest in a real browser."""

import re
from itertools import pairwise

import pytest
from browser import opened_page
from photos import write_photos, write_run
from recorder import Recorder

import stopgrad
from stopgrad.report import page as pages
from stopgrad.report.parts.map import COLOURS

TEXTS = ("ink", "faint", "good", "warn", "bad", "accent")


def luminance(colour):
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    """As WCAG 2 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("template", "selector"), [("base.html", ":root"), ("dark_and_print.css", ":root"),
                                                    ("dark_and_print.css", ".map")])  # fmt: skip
def test_texts_can_be_read(template, selector):
    text = pages._TEMPLATES.loader.get_source(pages._TEMPLATES, template)[0]
    rule = re.search(rf"{re.escape(selector)} {{(.*?)}}", text, re.DOTALL)[1]
    colours = dict(re.findall(r"--(\w+): (#\w{6})", rule))
    for name in set(TEXTS) & set(colours):
        for ground in ("paper", "wash"):
            assert contrast(colours[name], colours[ground]) >= 4.5, f"{name} on {ground}"


def test_classes_differ_in_shape_too():
    """Colours that follow each other, and those that come again, have another shape."""
    import torch

    from stopgrad.report.parts.map import colourings

    names = [f"class {i}" for i in range(40)]
    (groups, _) = (
        way["groups"] for way in colourings(names, torch.arange(40), torch.full((40,), -1), torch.zeros(40).long())
    )
    looks = [(group["colour"], group["shape"]) for group in groups]
    assert len(set(looks)) == 40
    assert all(one[1] != other[1] for one, other in pairwise(looks[: len(COLOURS)]))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("looks")
    photos = write_photos(root / "photos", num=80, splits=("train", "test"))
    run = write_run(root / "run", root / "photos")
    assert photos
    return stopgrad.write_encoder_report(
        run, root / "photos", out=root / "page.html", duplicates=0.9999, reporter=Recorder()
    ).path


@pytest.mark.slow
def test_on_paper_nothing_is_cut(page):
    """At the width of A4 between margins of a centimetre."""
    with opened_page(page, width=718) as (tab, errors, requests):
        tab.emulate_media(media="print")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 718
        cut = """[...document.querySelectorAll(".scroll, .cap, pre, table, canvas, img")].filter((one) =>
          one.offsetParent && (one.getBoundingClientRect().right > 719 || one.scrollWidth > one.clientWidth + 1)
        ).map((one) => one.className || one.tagName)"""
        assert tab.evaluate(cut) == []
        assert not tab.locator("#pick").is_visible()
        assert tab.locator("#map > canvas").is_visible()
        assert tab.pdf(format="A4").startswith(b"%PDF")
        assert not errors
        assert not requests


@pytest.mark.slow
def test_in_the_dark_and_on_a_phone(page):
    with opened_page(page, width=390) as (tab, errors, _):
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.evaluate("[...document.querySelectorAll('#pick button, #pick input')].every((one) => "
                            "one.getBoundingClientRect().right <= 390)")  # fmt: skip
        light = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.emulate_media(color_scheme="dark")
        dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert light != dark
        # The colours of classes are made for a light ground. A frame is drawn anew when the size or the colours change.
        corner = "document.querySelector('#map > canvas').getContext('2d').getImageData(2, 2, 1, 1).data.join()"
        tab.wait_for_function(f"{corner} === '255,255,255,255'")
        assert tab.locator("main").count() == 1
        assert not errors
