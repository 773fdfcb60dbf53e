"""The documentation builds without a warning, and nothing in it leads nowhere or fetches anything."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import opened_page

import stopgrad

ROOT = Path(__file__).parents[1]
# What a browser loads without a click.
LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "srcset"), ("iframe", "src")}


class Page(HTMLParser):
    """The ids of a page, and what it links to and loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            elif (tag, name) in LOADED:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)


def problems(site):
    """Links to files and anchors that are not there, and whatever a page would fetch from elsewhere."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        here = path.relative_to(site.resolve())
        for target in page.loaded + page.links:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https") or parts.netloc:
                if target in page.loaded:
                    found.append(f"{here} fetches {target}")
                continue
            if parts.scheme:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not file.is_file() or site.resolve() not in file.parents:
                found.append(f"{here} links to {target}")
            elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].ids:
                found.append(f"{here} links to {target}, which has no such anchor")
    for style in site.rglob("*.css"):
        found += [
            f"{style.name} fetches {url}"
            for url in re.findall(r"(?:url\(|@import )[\"']?(https?:[^\"')]+)", style.read_text("utf-8"))
        ]
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-n", "-b", "html", str(ROOT / "docs")]
    pytest.importorskip("sphinx", reason="needs the extra docs")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.timeout(450)
def test_the_site_builds_and_leads_everywhere(site):
    assert problems(site) == []


@pytest.mark.slow
def test_readme_names_sections_that_there_are(site):
    found = re.findall(r"\]\(docs/([\w/-]+)\.md(?:#([\w-]+))?\)", (ROOT / "README.md").read_text("utf-8"))
    assert found
    for page, anchor in found:
        assert not anchor or anchor in Page(site / f"{page}.html").ids, f"README.md: docs/{page}.md#{anchor}"


@pytest.mark.slow
def test_the_commands_of_the_program_are_there(site):
    ids = Page(site / "commands.html").ids
    assert {"stopgrad-pretrain", "stopgrad-evaluate-few-label", "stopgrad-study"} <= ids
    text = re.sub(r"<[^>]+>", "", (site / "commands.html").read_text("utf-8"))
    assert "stopgrad pretrain --out PATH [OPTIONS] [ARGS]" in text
    assert "--guide-keep-by" in text
    assert "the run in --out from its newest checkpoint" in text


@pytest.mark.slow
def test_every_public_name_has_its_place(site):
    ids = Page(site / "api.html").ids
    assert {f"stopgrad.{name}" for name in stopgrad.__all__ if name != "__version__"} <= ids


def test_what_leads_nowhere_is_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "style.css").write_text("@import 'https://fonts.example/a.css'; b { background: url(data:x) }")
    (tmp_path / "sub" / "other.html").write_text('<h1 id="there">x</h1><a href="https://example.org/">fine</a>')
    (tmp_path / "index.html").write_text(
        '<a href="sub/other.html#there"></a><a href="sub/other.html#gone"></a><a href="gone.html"></a><a href="#"></a>'
        '<a href="../outside.html"></a><script src="https://example.org/x.js"></script>'
    )
    assert problems(tmp_path) == [
        "index.html fetches https://example.org/x.js",
        "index.html links to sub/other.html#gone, which has no such anchor",
        "index.html links to gone.html",
        "index.html links to ../outside.html",
        "style.css fetches https://fonts.example/a.css",
    ]


@pytest.mark.slow
def test_by_keyboard_on_a_phone(site):
    with opened_page(site / "index.html", width=390, height=844) as (page, errors, requests):
        for _ in range(6):
            page.keyboard.press("Tab")
            # Drawers slide into view.
            page.wait_for_timeout(300)
        assert page.evaluate("document.activeElement.closest('.sidebar-drawer') !== null")
        left, right = page.evaluate(
            "(({left, right}) => [left, right])(document.activeElement.getBoundingClientRect())"
        )
        assert (left >= 0, right <= 390) == (True, True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert errors == []
    assert requests == []
