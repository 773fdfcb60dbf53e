"""The Python in README.md and docs runs, each page's blocks in order and in one namespace.

A block that cannot run here stands behind a line `<!-- not run: WHY -->`.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from stopgrad.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md", "docs/python.md", "docs/backbones.md", "docs/plugins.md", "docs/data.md", "docs/start.md",
    "docs/photos.md", "docs/method.md", "docs/howto/from-lightly.md", "docs/howto/from-simsiam.md",
    "docs/howto/only-the-loss.md", "docs/howto/search.md", "docs/howto/export.md",
)  # fmt: skip
BLOCK = re.compile(r"^(?P<mark><!-- not run: .+ -->\n\s*)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = {**TINY, "epochs": 1, "image_size": 8, "early_size": 0, "stem": "small", "device": "cpu"}


def blocks(text):
    found = [m for m in BLOCK.finditer(text) if m["mark"] is None]
    return [(text[: m.start("code")].count("\n"), m["code"]) for m in found]


@pytest.fixture
def in_a_folder_of_photos(tmp_path, monkeypatch):
    """A working folder with photos/, and training made as short as can be."""
    digits = load_digits()
    for i in range(80):
        folder = tmp_path / "photos" / str(digits.target[i])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15).astype(np.uint8)).save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)

    import stopgrad.estimator
    from stopgrad.train.pretrain import pretrain

    def short(*arguments, **given):
        own = {name: given[name] for name in ("backbone",) if isinstance(given.get(name), nn.Module)}
        return pretrain(*arguments, **{**given, **SMALL, **own})

    monkeypatch.setattr(stopgrad, "pretrain", short)
    monkeypatch.setattr(stopgrad.estimator, "pretrain", short)
    few = digits.data[:120], digits.target[:120]
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda return_X_y=False: few if return_X_y else digits)


@pytest.mark.filterwarnings("ignore")  # So little training collapses, or converges nowhere.
@pytest.mark.parametrize("page", [*PAGES])
@pytest.mark.slow
def test_the_python_on_the_page_runs(page, in_a_folder_of_photos):
    # What a page leaves to its reader.
    namespace = {
        "backbone": nn.Flatten(), "projector": nn.Linear(12, 8), "predictor": nn.Linear(8, 8),
        "view1": torch.rand(6, 3, 2, 2), "view2": torch.rand(6, 3, 2, 2),
    }  # fmt: skip
    found = blocks((ROOT / page).read_text())
    assert found
    for line, code in found:
        # Lines are counted as on the page.
        exec(compile("\n" * line + code, page, "exec"), namespace)


def test_every_page_with_python_is_among_those_that_run():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert {str(page.relative_to(ROOT)) for page in pages if blocks(page.read_text())} == set(PAGES)


def test_what_a_page_links_to_is_there():
    for page in PAGES:
        folder = (ROOT / page).parent
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
            assert (folder / target).exists(), f"{page} links to {target}"


def test_the_list_of_all_pages_has_every_page():
    text = (ROOT / "docs" / "index.md").read_text()
    pages = {
        page
        for group in re.findall(r"```{toctree}\n(.*?)```", text, re.DOTALL)
        for page in group.split("\n\n")[1].split()
    }
    listed = text.split("## All pages")[1].split("```")[0]
    assert {page.removesuffix(".md") for page in re.findall(r"\]\(([^)]+)\)", listed)} == pages


def test_every_recipe_has_its_line_in_the_choice():
    text = (ROOT / "docs" / "choosing.md").read_text()
    assert [name for name in RECIPES if f"`{name}`" not in text] == []


def test_the_files_of_the_architecture_are_there():
    for path in re.findall(r"[\w/]+\.py\b", (ROOT / "docs" / "architecture.md").read_text()):
        assert (ROOT / path if path.startswith("tests/") else ROOT / "src" / "stopgrad" / path).exists(), path


def test_the_table_of_packages_is_in_their_order():
    from test_layers import ROOMS

    table = (ROOT / "docs" / "architecture.md").read_text().split("## Packages")[1].split("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)(?:\.py|/)` \|", table, re.MULTILINE)) == ROOMS


def test_the_guide_and_the_method_of_the_page_train(tmp_path, monkeypatch):
    from stopgrad.cli.main import run

    (_, guide), (_, method) = blocks((ROOT / "docs" / "plugins.md").read_text())
    assert len(guide.splitlines()) <= 10
    (tmp_path / "my_guides.py").write_text(guide)
    (tmp_path / "my_methods.py").write_text(method)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    common = ["--steps", "2", "--backbone", "resnet10_16", "--no-baselines", "--no-report", "--devices", "1"]
    given = ["--method", "byol", "--guide", "my_guides:shortest_view", "--source-first"]
    assert run(["pretrain", "--out", "one", *given, *common]) == 0
    assert run(["pretrain", "--out", "two", "--method", "my_methods:alike", *common]) == 0


def test_a_marked_block_is_left_out():
    text = "<!-- not run: takes a day -->\n```python\n1 / 0\n```\n\n```python\nx = 1\n```\n"
    assert blocks(text) == [(6, "x = 1\n")]
