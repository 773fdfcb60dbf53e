"""The pages of results are what benchmarks/results_pages.py makes of the committed JSON, finished or not."""

import json
import re
import shutil
from pathlib import Path

import pytest
import results_pages
from pages.claims import Claims
from pages.found import Study, read_studies

from stopgrad.studies.questions.claims import STUDY

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = f"typed\n{results_pages.BEGIN}old\n{results_pages.END}typed too\n"


@pytest.fixture
def results(tmp_path):
    """A copy of the results, without the cells and the recipes' runs."""
    (tmp_path / "studies").mkdir()
    for file in (RESULTS / "studies").glob("*.json"):
        shutil.copy(file, tmp_path / "studies")
    shutil.copy(RESULTS / "repulsion.json", tmp_path)
    return tmp_path


def an_arm(name, values, verdict="not_collapsed"):
    figure = {"mean": 0.0, "std": None, "values": values}
    keys = ("knn_top1", "linear_top1", "effective_rank", "projection_std", "projection_effective_rank")
    return {
        "name": name, "words": name, "epochs": 52, "passes": 1e7, "seconds": 9.0, "seeds": list(range(len(values))),
        "figures": dict.fromkeys(keys, figure) if values else {}, "verdicts": {verdict: len(values)},
        "failed": [], "cells": {str(seed): f"{name}-{seed}" for seed in range(len(values))},
    }  # fmt: skip


def long_study(results, values, **verdicts):
    """Results of `claims` at `long` with such values of some arms, and their cells."""
    arms = [an_arm(arm.name, values.get(arm.name, []), verdicts.get(arm.name, "not_collapsed")) for arm in STUDY.arms]
    compared = [{"arm": c.arm, "rival": c.rival, "question": c.question, "figure": "knn_top1"}
                for c in STUDY.comparisons if c.arm in values and c.rival in values]  # fmt: skip
    content = {
        "study": "claims", "scale": "long", "title": STUDY.title, "question": STUDY.question, "complete": False,
        "num_done": sum(map(len, values.values())), "num_cells": 66, "protocol": "k-NN", "linear_protocol": "linear",
        "machines": ["a machine"], "arms": arms, "comparisons": compared, "resolution": None,
        "command": "stopgrad study claims --scale long --data /home/me/cifar10 --out /home/me/out --jobs 1",
    }  # fmt: skip
    (results / "studies" / "claims-long.json").write_text(json.dumps(content))
    (results / "studies" / "cells").mkdir()
    for arm in arms:
        for key in arm["cells"].values():
            cell = {"test": {"knn_top1": 0.9876, "knn_protocol": "k-NN"}, "few_label": {"1%": 0.1234}}
            (results / "studies" / "cells" / f"{key}.json").write_text(json.dumps(cell))


def test_the_pages_are_those_that_the_results_give():
    texts = results_pages.pages(RESULTS, (ROOT / "README.md").read_text())
    assert not results_pages.out_of_date(texts, ROOT), "run python benchmarks/results_pages.py"
    assert 80 <= texts["docs/results.md"].count("\n") <= 120


def test_what_a_page_links_to_is_there():
    texts = results_pages.pages(RESULTS, (ROOT / "README.md").read_text())
    for page, text in texts.items():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_the_words_of_the_page_are_what_the_studies_say():
    studies = read_studies(RESULTS / "studies")
    final, small, digits = (studies[name] for name in ("guide-small-some-test", "guide-small", "rivals-digits"))
    assert final.difference("half_bare", "gsg_bare_steps").verdict == "better"
    assert final.difference("half_bare", "half_by_chance_bare").verdict == "better"
    assert final.difference("half_bare", "symmetric_more_steps").verdict == "worse"
    assert {small.difference(guide, "random").verdict for guide in ("gsg", "batch")} == {"no significant difference"}
    assert {digits.difference("simsiam_gsg_2v", rival).verdict for rival in ("simclr", "vicreg")} == {"worse"}


def test_an_unfinished_study_has_a_page_that_says_so(results):
    long_study(results, {"simsiam_gsg_4v": [0.5, 0.6], "simsiam_symmetric_2v": [0.4]})
    texts = results_pages.pages(results, README)
    page = texts["docs/results/claims-long.md"]
    assert "**Partial: 3 of 66 cells**; 20 of 22 arms are not run yet" in page
    assert "+10.0 (n = 1)" in page
    assert "| linear probe on 1% of the labels, % |" in page
    assert "12.3 |" in page
    assert "98.8" not in page, "test images before three seeds"
    assert "/home" not in page
    assert "claims --scale long --data cifar10/" in page
    assert "3 of 66 cells are done, and 0 of 22 arms have three seeds" in texts["docs/results.md"]
    assert "| long, 52 epochs |" in texts["docs/results.md"]
    assert "no significant difference (small, 16 epochs)" in texts["docs/results.md"]


def test_a_study_that_has_only_begun_has_a_page(results):
    long_study(results, {})
    texts = results_pages.pages(results, README)
    assert "**Partial: 0 of 66 cells**; 22 of 22 arms are not run yet" in texts["docs/results/claims-long.md"]
    assert "[claims, long](results/claims-long.md): 0 of 66" in texts["docs/results.md"]


def test_the_longest_schedule_with_three_seeds_gives_the_verdict(results):
    long_study(results, {"simsiam_gsg_4v": [0.5, 0.6, 0.7], "simsiam_symmetric_2v": [0.4, 0.51, 0.6]})
    texts = results_pages.pages(results, README)
    assert "higher (long, 52 epochs)" in texts["docs/results.md"]
    assert "Reproduced in part at these lengths: at equal epochs guided higher for SimSiam" in texts["README.md"]
    assert "98.8" in texts["docs/results/claims-long.md"]


def test_a_collapse_of_the_guided_arm_alone_is_told(results):
    guided = "simsiam_gsg_2v_bare"
    long_study(results, {guided: [0.3, 0.4, 0.5], "simsiam_gsg_4v": [0.6], "untrained": [0.3]}, **{guided: "collapsed"})
    texts = results_pages.pages(results, README)
    assert "not run / 3 of 3" in texts["docs/results.md"]
    assert (
        "0 of 3; small, 8 epochs), but not in longer training (guided in 3 of 3; long, 52 epochs)" in texts["README.md"]
    )
    assert "on two views rank 0.4 of the projections and 0.4 of the features, k-NN 40.0. " in texts["docs/results.md"]


def test_where_both_arms_collapse_in_longer_training_both_lengths_are_told(results):
    guided, symmetric = "simsiam_gsg_2v_bare", "simsiam_symmetric_2v_bare"
    values = {guided: [0.3, 0.4, 0.5], symmetric: [0.1, 0.1, 0.1], "simsiam_gsg_4v": [0.6], "untrained": [0.3]}
    long_study(results, values, **{guided: "partly_collapsed", symmetric: "collapsed"})
    texts = results_pages.pages(results, README)
    assert (
        "Reproduced for SimSiam (symmetric collapses in 3 of 3 runs, guided in 0 of 3; small, 8 epochs), but not in "
        "longer training (symmetric collapses in 3 of 3 runs, guided in 3 of 3; long, 52 epochs)" in texts["README.md"]
    )
    told = "Its rivals without a predictor: symmetric rank 0.1 of the projections and 0.1 of the features, k-NN 10.0"
    assert told in texts["docs/results.md"]
    assert "at the best of three rates,\nthese have a k-NN accuracy of 19.1 and 22.1." in texts["docs/results.md"]
    ahead = "52 epochs), where guided is 30.0 points ahead in k-NN at equal passes all the same"
    assert ahead in texts["README.md"]


def test_without_results_there_is_no_verdict():
    claims = Claims({})
    assert not Study("none")
    assert "too few seeds" in claims.accuracy()
    assert claims.batches() == claims.trend(results_pages.claims.EPOCHS["byol"]) == "too few seeds"
    assert claims.collapse() == "too few seeds of SimSiam; too few seeds of BYOL"
    assert "| BYOL: equal passes |  |  |  | too few seeds |" in claims.table()


@pytest.mark.slow
def test_check_tells_what_is_out_of_date(results, tmp_path, monkeypatch, capsys):
    root = tmp_path / "root"
    shutil.copytree(results, root / "benchmarks" / "results", ignore=lambda *_: ["root"])
    (root / "README.md").write_text(README)

    def run(*flags):
        monkeypatch.setattr("sys.argv", ["results_pages.py", "--root", str(root), *flags])
        return results_pages.main()

    assert run("--check") == 1
    assert run() == run("--check") == 0
    text = (root / "README.md").read_text()
    assert text.startswith(f"typed\n{results_pages.BEGIN}In runs of small networks on two cores")
    assert text.endswith(f"{results_pages.END}typed too\n")
    (root / "docs" / "results" / "main-small.md").write_text("typed by hand")
    (root / "docs" / "results" / "of-no-study.md").write_text("")
    capsys.readouterr()
    assert run("--check") == 1
    said = capsys.readouterr().err
    assert "main-small.md" in said
    assert "of-no-study.md" in said
    assert run() == run("--check") == 0
    assert not (root / "docs" / "results" / "of-no-study.md").exists()
