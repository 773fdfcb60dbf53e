"""Writes docs/results.md, docs/results/, the figures of both and README's "Does the paper hold?" from the results.

    python benchmarks/results_pages.py            # after a study has gone on: everything that is there now
    python benchmarks/results_pages.py --check    # writes nothing; exits with 1 if a page is out of date

All figures come from the JSON files in benchmarks/results through the templates in benchmarks/pages/templates; what is
quoted from elsewhere stands in benchmarks/pages/sources.toml, each with its source. A study that is not finished is
shown as far as it is, and a new one gets a page by itself.
"""

import argparse
import sys
import tomllib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pages import numbers, plots, tables
from pages.claims import Claims
from pages.found import Found, enough, written

from scipy.stats import t as student

from stopgrad.studies.scales import scale_of
from stopgrad.studies.statistics import CONFIDENCE

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent / "pages"
BEGIN, END = "<!-- results: made by benchmarks/results_pages.py -->\n", "<!-- end of results -->\n"
PAGES = {
    "guide": "Which guide, if any",
    "recipe-cifar10-small": "CIFAR-10 in 15 minutes on two cores",
    "recipe-digits": "Digits",
    "recipe-photos-small": "A folder of photos: flowers12",
    "recipes-without-predictor": "Without a predictor, by the recipes",
    "speed": "Speed",
    "detection": "Detection: a small run",
}
"""Pages that are not of one study: template -> title."""


class WrongStatementError(Exception):
    """The results no longer say what a template says in words."""


def expect(condition, words):
    """Nothing; where the results are no longer so, the page is not made: its words have to change first."""
    if not condition:
        raise WrongStatementError(f"the results no longer say so: {words}. Change the template.")
    return ""


def environment(found):
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    made.globals |= {
        "found": found, "study": found.study, "maybe": found.maybe, "runs": found.runs, "raw": found.raw,
        "claims": Claims(found), "tables": tables, "numbers": numbers, "expect": expect, "written": written,
        "enough": enough, "scale_of": scale_of, "sources": tomllib.loads((HERE / "sources.toml").read_text()),
        "span": numbers.from_to, "signed": numbers.signed, "plain": numbers.plain, "count": numbers.count,
        "spell": numbers.spell, "trained": count_of, "t_of": t_of, "with_std": numbers.with_std, "LEAST_SEEDS": numbers.LEAST_SEEDS,
        "lines": "\n".join,
    }  # fmt: skip
    made.filters["sentence"] = lambda text: text[0].upper() + text[1:]
    return made


def t_of(seeds):
    """Half of a 95% interval over so many seeds, in standard errors."""
    return float(student.ppf((1 + CONFIDENCE) / 2, seeds - 1))


def pages(results, readme):
    """Every file that is made: path below the root of the repository -> text.

    Args:
        results: the folder of results.
        readme: README.md as it is; what stands outside of its markers stays.
    """
    found = Found(results)
    made = environment(found)

    def page(template, **values):
        return made.get_template(template).render(**values).rstrip("\n") + "\n"

    studies = {name: title_of(found.study(name)) for name in found.names}
    have_notes = {Path(name).stem for name in made.list_templates() if name.startswith("studies/")}
    scales = {"small": f"{count_of('small')} images, small network", "long": f"{count_of('long')} images, same network"}
    claims = made.globals["claims"]
    texts = {
        "docs/results.md": page("results.md", titles=PAGES, studies=studies),
        "docs/results/README.md": page("index.md", titles=PAGES, studies=studies),
        "docs/images/results-schedules.svg": page("lines.svg", **plots.schedules_chart(claims, scales)),
        "docs/images/results-difference.svg": page("lines.svg", **plots.difference_chart(claims, scales)),
    }
    for name, title in studies.items():
        notes = f"studies/{name}.md" if name in have_notes else ""
        picture = f"{name}.svg" if (found.study_dir / f"{name}.svg").exists() else ""
        texts[f"docs/results/{name}.md"] = page(
            "study.md", title=title, s=found.study(name), notes=notes, picture=picture
        )
    for name, title in PAGES.items():
        texts[f"docs/results/{name}.md"] = page(f"{name}.md", title=title)
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    texts["README.md"] = before + BEGIN + page("readme.md") + END + after
    return texts


def title_of(study):
    """Claim, scale and length: enough to tell a study's pages apart."""
    c = study.content
    length = next((f", {w} epochs" for w in study.name.split("-") if w.isdigit()), "")
    data = study.name.split("-photos-")[1].removesuffix("-some").replace("_", " ") if "-photos-" in study.name else ""
    judged = ", judged by the test images" if c["judged_by"] == "test" else ""
    return f"{c['title']} ({c['study']}, {data or c['scale']}{length}{judged})"


def count_of(scale):
    """Images that a scale of CIFAR-10 trains on."""
    own = scale_of(scale)
    return numbers.count((own.num_images or own.data_size) - own.num_held_out)


def write(texts, root):
    """Write what changed; pages of studies that are there no more are removed."""
    for path, text in texts.items():
        file = root / path
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            print(path)
    for file in (root / "docs" / "results").glob("*.md"):
        if f"docs/results/{file.name}" not in texts:
            file.unlink()
            print(f"removed {file.name}")


def out_of_date(texts, root):
    """Paths of pages that differ from what is made."""
    stale = [path for path, text in texts.items() if not (root / path).exists() or (root / path).read_text() != text]
    there = (f"docs/results/{file.name}" for file in (root / "docs" / "results").glob("*.md"))
    return stale + [path for path in there if path not in texts]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="another folder of results")
    parser.add_argument("--root", type=Path, default=ROOT, help="where docs/ and README.md are")
    a = parser.parse_args()
    texts = pages(a.results, (a.root / "README.md").read_text())
    if not a.check:
        write(texts, a.root)
        return 0
    stale = out_of_date(texts, a.root)
    for path in stale:
        print(f"out of date: {path}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
