"""Writes docs/results.md, docs/results/ and their figures, and README's "Does the paper hold?", from the results.

    python benchmarks/results_pages.py            # after a study has gone on; takes seconds
    python benchmarks/results_pages.py --check    # writes nothing; exits with 1 if a page is out of date

All figures come from the JSON files in benchmarks/results, through the templates in benchmarks/pages/templates. A study
that is not finished is shown as far as it is, and a new one gets a page by itself.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pages import claims, found, plots
from pages.runs import read_runs

from stopgrad.studies.scales import scale_of

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- made by benchmarks/results_pages.py -->\n", "<!-- end -->\n"


def pages(results, readme):
    """Every file that is made: path below the root of the repository -> text.

    Args:
        results: the folder of results.
        readme: README.md as it is; what stands outside of its markers stays.
    """
    studies = found.read_studies(results / "studies")
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "pages" / "templates"), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"percent": "{:.0%}".format, "sentence": lambda words: words[0].upper() + words[1:] + "."}
    own = claims.Claims(studies)
    values = {
        "studies": studies, "study": own.study, "claims": own, "rows": claims, "written": found.written,
        "plain": found.plain, "runs": read_runs(results), "scale_of": scale_of,
        "repulsion": json.loads((results / "repulsion.json").read_text()),
    }  # fmt: skip

    def page(template, **more):
        return made.get_template(template).render(values | more).rstrip("\n") + "\n"

    panels = {name: f"{name}: {own.num_images(name):,} images of CIFAR-10" for name in ("small", "long")}
    texts = {
        "docs/results.md": page("results.md"),
        "docs/results/runs.md": page("runs.md"),
        "docs/images/results-schedules.svg": page("lines.svg", **plots.schedules_chart(own, panels)),
        "docs/images/results-difference.svg": page("lines.svg", **plots.difference_chart(own, panels)),
    }
    for name, one in studies.items():
        picture = f"{name}.svg" if (results / "studies" / f"{name}.svg").exists() else ""
        texts[f"docs/results/{name}.md"] = page("study.md", s=one, picture=picture)
    between = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)
    texts["README.md"] = between.sub(lambda _: page("readme.md"), readme)
    return texts


def out_of_date(texts, root):
    """Paths of the pages that differ from what is made, those of studies that are there no more included."""
    stale = [path for path, text in texts.items() if not (root / path).exists() or (root / path).read_text() != text]
    there = (f"docs/results/{file.name}" for file in (root / "docs" / "results").glob("*.md"))
    return stale + [path for path in there if path not in texts]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="a repository other than this one")
    a = parser.parse_args()
    texts = pages(a.root / "benchmarks" / "results", (a.root / "README.md").read_text())
    stale = out_of_date(texts, a.root)
    for path in stale:
        if a.check:
            print(f"out of date: {path}", file=sys.stderr)
        elif path in texts:
            (a.root / path).parent.mkdir(parents=True, exist_ok=True)
            (a.root / path).write_text(texts[path])
            print(f"written: {path}")
        else:
            (a.root / path).unlink()
            print(f"removed: {path}")
    return 1 if a.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
