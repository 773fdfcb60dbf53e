"""The words of docs/glossary.md, in code, messages, pages and documents."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("src/**/*.py", "src/**/templates/*", "docs/*.md", "docs/howto/*.md", "README.md")
# The glossary names the words it rules out; recorded results are left as they were written.
LEFT_ALONE = ("docs/glossary.md", "docs/results.md")

# What is banned, and what to write instead. Between two words of a phrase a line may end.
BANNED = {
    "told apart": "significant difference; distinguished",
    "whoever": "the process, the user, the caller that ...",
    "makes? of it": "what is measured, as in: speed on this machine",
    "to be had": "available",
    "at hand": "available, given",
    "held against": "compared with",
    "pronounced?": "give (a verdict)",
    "earns? credit": "counts as an improvement",
    "earns? more": "improves on",
    "merit of": "due to",
    "said of": "set for, known about",
    "somebody": "another process, the user, the author",
    "nobody waits": "nothing waits",
    "equal price": "matched compute",
    "linear probing score": "linear evaluation",
    "representation vectors?": "features",
}
# Where a line ends inside a phrase: the quotes of a string, the sign of a comment, an indent.
GAP = r"(?:\s|\"\s*\n\s*f?\"|\n\s*#\s*)+"
PHRASE = re.compile("|".join(rf"\b{words.replace(' ', GAP)}\b" for words in BANNED), re.IGNORECASE)


def uses(text):
    """The number of the line where each banned phrase begins, and the phrase."""
    return [(1 + text.count("\n", 0, use.start()), " ".join(use[0].split())) for use in PHRASE.finditer(text)]


@pytest.mark.parametrize("pattern", PLACES)
def test_no_banned_words(pattern):
    paths = [path for path in sorted(ROOT.glob(pattern)) if str(path.relative_to(ROOT)) not in LEFT_ALONE]
    assert paths
    found = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}" for path in paths for line, phrase in uses(path.read_text("utf-8"))
    ]
    assert not found, "Write the words of docs/glossary.md:\n" + "\n".join(found)


@pytest.mark.parametrize(("text", "expected"), [
    ("# Not told apart.", [(1, "told apart")]),
    ("a\n# It is told\n# apart.", [(2, "told # apart")]),
    ('raise Error("none is to "\n    f"be had")', [(1, 'to " f"be had')]),
    ("scikit-learns credit; whosoever; the hand; said often", []),
])  # fmt: skip
def test_a_phrase_is_found_across_a_line_end(text, expected):
    assert uses(text) == expected
