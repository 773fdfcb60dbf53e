"""Every `stopgrad ...` line of the documents is one that the program accepts: commands, flags, values, recipes.

The lines are parsed by the program's own parser, and not run.
"""

import re
import shlex
from pathlib import Path

import pytest
from cyclopts import CycloptsError, MissingArgumentError

from stopgrad.cli.main import app
from stopgrad.cli.shared.settings import given_settings
from stopgrad.errors import StopgradError
from stopgrad.recipes import resolve

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
LINE = re.compile(r"(?:\$ |.*-m |srun .*)?(stopgrad [a-z].*)")
# Words in capitals stand for what a reader fills in; these are where not any text would do.
FILLED_IN = {"SEED": "0", "S": "0", "X": "auto", "METHOD": "byol", "GUIDE": "symmetric"}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
# Of tensorboard, mlflow, torchrun, SLURM, docker; the last is made of a field by benchmarks/scale.py.
OTHERS = {"--help", "--version", "--logdir", "--backend-store-uri", "--nproc-per-node", "--nnodes", "--rdzv-backend",
          "--rdzv-endpoint", "--max-restarts", "--ntasks-per-node", "--gpus", "--images-per-second"}  # fmt: skip


def lines_in(text):
    """Each line of the program's, and whether it is one to copy: those in running text may leave arguments out."""
    for fence in FENCE.finditer(text):
        for line in re.sub(r"\\\n\s*", " ", fence[2]).splitlines():
            if found := LINE.fullmatch(line.strip()):
                yield found[1], True
    for code in CODE.findall(FENCE.sub("", text)):
        if found := LINE.fullmatch(" ".join(code.split())):
            yield found[1], False


def refusal(line, *, whole):
    """What the program says against a line; None: nothing."""
    tokens = [FILLED_IN.get(token, token) for token in shlex.split(line, comments=True)[1:]]
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        if command.__name__ == "pretrain":
            given = bound.arguments
            resolve(given.get("recipe"), None, given_settings(given["settings"]) if "settings" in given else {},
                    given.get("augmentation"))  # fmt: skip
    except MissingArgumentError as error:
        return f"{error}" if whole else None
    except (CycloptsError, StopgradError) as error:
        return f"{error}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_program_accepts_what_a_page_says(page):
    # Results say what was varied, not where it was written.
    own = "results" not in page.parent.name
    said = [(line, refusal(line, whole=copied and own)) for line, copied in lines_in(page.read_text("utf-8"))]
    assert [(line, words) for line, words in said if words is not None] == []


def test_there_are_flags_by_the_names_in_the_text():
    known = OTHERS | set(FLAG.findall(app.generate_docs(output_format="markdown")))
    for script in [*(ROOT / "examples").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        known |= set(FLAG.findall(script.read_text("utf-8")))
    for page in PAGES:
        for code in CODE.findall(FENCE.sub("", page.read_text("utf-8"))):
            assert set(FLAG.findall(code)) <= known, f"{page.relative_to(ROOT)}: `{code}`"


@pytest.mark.parametrize(("line", "words"), [
    ("stopgrad pretrain photos/ --out RUN --epochs 3  # fine", None),
    ("stopgrad pretrain photos/ --out RUN --seed SEED", None),
    ("stopgrad pretrain photos/", "out"),
    ("stopgrad pretrain photos/ --out RUN --epohs 3", "epohs"),
    ("stopgrad pretrain photos/ --out RUN --epochs three", "three"),
    ("stopgrad pretrain photos/ --out RUN --recipe photo", "photo"),
    ("stopgrad pretrain photos/ --out RUN --guide nearest_in_memory", "removed"),
    ("stopgrad pretrain photos/ --out RUN --augmentation space", "space"),
    ("stopgrad evaluate nearest RUN", "nearest"),
    ("stopgrad serve RUN", "serve"),
])  # fmt: skip
def test_what_is_outdated_is_refused(line, words):
    said = refusal(line, whole=True)
    assert said == words or words in said


def test_the_lines_of_a_page_are_found():
    block = "```bash\npip install x\ntorchrun --x 4 -m stopgrad pretrain A \\\n    --out B\n```\n"
    text = f"Run `stopgrad check RUN`, or\n\n{block}"
    assert list(lines_in(text)) == [("stopgrad pretrain A  --out B", True), ("stopgrad check RUN", False)]
