"""Builds the pages as a site: python -m sphinx -W --keep-going -n -b html docs site"""

import re
import sys
from unittest.mock import patch

import stopgrad
from stopgrad.cli.main import app

project = "stopgrad"
author = "The stopgrad developers"
project_copyright = author
version = release = stopgrad.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Headings are linked to by the names that Git hosts give them, too.
myst_heading_anchors = 4

# Single backticks of docstrings are code, and shapes and units are in their text.
default_role = "code"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
# Types of other libraries are not looked up: the site is built without a network.
nitpick_ignore_regex = [(r"py:.*", r"(?!stopgrad\.).*")]

# Flags keep their two dashes.
smartquotes = False
highlight_language = "text"
html_theme = "furo"
html_title = "stopgrad"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False

COMMANDS = "<!-- commands -->"
# Pages of studies stand below that of all results; benchmarks/results_pages.py writes both.
STUDIES = "\n```{toctree}\n:hidden:\n:glob:\n\nresults/*\n```\n"


def command_reference() -> str:
    """Every command with its flags, as the program documents itself, in Markdown."""
    # Else the lines of usage begin with the program that is running, which is Sphinx.
    with patch.object(sys, "argv", ["stopgrad"]):
        text = app.generate_docs(output_format="markdown")
    # The page has a title and a table of contents of its own.
    return text[text.index("**Commands**:") :]


def _fill_in(_sphinx, page: str, source: list[str]) -> None:
    if page == "commands":
        assert COMMANDS in source[0]
        source[0] = source[0].replace(COMMANDS, command_reference())
    if page == "results":
        source[0] += STUDIES
    # A link that a Git host shows as the name of a file has the title of the page or section here.
    source[0] = re.sub(r"\[[\w./-]+\.md\](?=\([^)]+\))", "[]", source[0])


def setup(sphinx) -> None:
    """Called by Sphinx."""
    sphinx.connect("source-read", _fill_in)
