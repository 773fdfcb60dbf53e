"""The pages are whole in one file, look into nothing else, and take any file name."""

import re
import shutil

import pytest
from browser import opened_page
from photos import write_photos, write_run

from stopgrad import embed_to_file, find_duplicates, search
from stopgrad.report.search import write_duplicates_page, write_search_page

NASTY = "<img src=x onerror=alert(1)> & \"ü' ‮.png"


@pytest.fixture
def result(tmp_path):
    data = tmp_path / "data"
    paths = write_photos(data, num=24, classes=("a", "<i>b & c"))
    shutil.copy(paths[0], data / "a" / NASTY)
    shutil.copy(paths[0], tmp_path / NASTY)
    return search(write_run(tmp_path / "run", data), tmp_path / NASTY, top=10)


def test_a_search(result, tmp_path):
    write_search_page(result, tmp_path / "page.html")
    with opened_page(tmp_path / "page.html") as (page, errors, requests):
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.locator("img").count() == 11
        assert page.locator(".query-name").inner_text() == NASTY
        captions = page.locator("li figcaption").all_inner_texts()
        assert [int(text.split(" ")[0]) for text in captions] == list(range(1, 11))
        assert sum("copy" in text for text in captions) == 2
        assert any("<i>b & c" in text for text in captions)
        # 8 x 8 pixels, each seen.
        assert page.locator("img").first.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not errors
    assert not requests


def test_it_fits_a_phone(result, tmp_path):
    write_search_page(result, tmp_path / "page.html")
    with opened_page(tmp_path / "page.html", width=380) as (page, errors, _):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not errors


def test_nothing_is_fetched_and_everything_escaped(result, tmp_path):
    write_search_page(result, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "<i>b" not in text
    assert all(uri.startswith("data:") for uri in re.findall(r'(?:src|href)="([^"]*)"', text))


@pytest.mark.slow
def test_duplicates(tmp_path):
    data = tmp_path / "data"
    paths = write_photos(data, num=24)
    shutil.copy(paths[0], data / "b" / NASTY)
    found = find_duplicates(write_run(tmp_path / "run", data), threshold=0.05)
    write_duplicates_page(found, tmp_path / "page.html")
    with opened_page(tmp_path / "page.html") as (page, errors, requests):
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert "one group holds 25 of 25" in page.locator(".warning").inner_text()
        # One more than a page shows of a group.
        assert page.locator("li").count() == 24
        assert "and 1 more" in page.content()
    assert not errors
    assert not requests


def test_no_duplicates_and_no_pictures(tmp_path):
    data = tmp_path / "data"
    paths = write_photos(data, num=4)
    run = write_run(tmp_path / "run", data)
    shutil.copy(paths[1], tmp_path / "query.png")
    embed_to_file(run, data, tmp_path / "e.parquet")
    write_duplicates_page(find_duplicates(run, threshold=1), tmp_path / "none.html")
    assert "There are no groups." in (tmp_path / "none.html").read_text()
    shutil.rmtree(data)
    with pytest.warns(UserWarning, match="no longer exist"):
        result = search(tmp_path / "e.parquet", tmp_path / "query.png", top=4)
    with pytest.warns(UserWarning, match="no longer exist"):
        write_duplicates_page(find_duplicates(tmp_path / "e.parquet", threshold=0.05), tmp_path / "gone.html")
    assert "4 of them are no longer available" in (tmp_path / "gone.html").read_text()
    write_search_page(result, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("the image no longer exists") == 4
