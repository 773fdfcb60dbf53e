"""The page and the figure of a study, of invented results."""

import copy
import math
import re
import xml.etree.ElementTree as ET

import pytest
from browser import opened_page

import stopgrad.report.study as module
from stopgrad.report.parts.forest import forest_of, ticks
from stopgrad.report.parts.study_figure import wrapped
from stopgrad.report.study import draw_study

WORDS = ("SimSiam, GSG on two views, mutual partners", "SimSiam, a random guide on two views", "BYOL, symmetric",
         "SimSiam without stop-gradient", "SimCLR, four views of each image")  # fmt: skip
DRAWN = "document.body.dataset.drawn === 'yes' && document.body.dataset.scattered === 'yes'"


def spread(mean, std, num=3):
    return {
        "mean": mean,
        "std": std if num > 1 else None,
        "values": [mean + std * (i - (num - 1) / 2) for i in range(num)],
    }


def invented(num_arms=5, num_comparisons=4):
    arms = []
    for place in range(num_arms):
        mean, fallen = 0.34 + 0.013 * ((place * 7) % 11), place == 3
        curve = [
            {"epoch": 0.8 * (i + 1), "passes": 48_000.0 * (i + 1) * (1 + place % 3), "seconds": 9.2 * (i + 1),
             "knn_top1": mean - 0.12 * 0.7**i, "projection_std": 0.02 if fallen else 0.97,
             "projection_effective_rank": 1.1 if fallen else 20 + 4.0 * i, "guide_balance": 0.5 + 0.01 * (-1) ** i,
             **({"guide_margin": 0.2 + 0.01 * i} if place == 0 else {"guide_margin": None})} for i in range(10)
        ]  # fmt: skip
        arms.append({
            "name": f"arm_{place}",
            "words": WORDS[place % len(WORDS)] + (f", variant {place}" if place >= len(WORDS) else ""),
            "settings": {"method": "simsiam", "guide": f"guide {place % 4}", "lr": 0.06, "batch": 256},
            "epochs": 8 * (1 + place % 3), "passes_an_image": 6, "passes": 480_000.0 * (1 + place % 3),
            "seeds": [0, 1, 2], "seconds": 92.1 + 30 * place,
            "figures": {"knn_top1": spread(0.13 if fallen else mean, 0.006), "linear_top1": spread(mean + 0.05, 0.004),
                        "projection_std": spread(0.02 if fallen else 0.97, 0.01),
                        "projection_effective_rank": spread(1.1 if fallen else 40.2, 0.3)},
            "untrained_knn": 0.29, "pixels_knn": 0.33, "verdicts": {"collapsed": 3} if fallen else {"learnt": 3},
            "curve": curve, "failed": [],
        })  # fmt: skip
    comparisons = []
    for place in range(num_comparisons):
        difference, half = (0.004, 0.031, -0.024, 0.012)[place % 4], (0.016, 0.012, 0.009, 0.2)[place % 4]
        verdict = ("no significant difference", "better", "worse", "no significant difference")[place % 4]
        comparisons.append({"arm": f"arm_{place % num_arms}", "rival": f"arm_{(place + 1) % num_arms}",
                            "question": "the guide, beside chance in the same graph", "figure": "knn_top1", "n": 3,
                            "difference": difference, "interval": [difference - half, difference + half],
                            "verdict": verdict})  # fmt: skip
    return {
        "study": "main", "scale": "small", "title": "Does guided stop-gradient raise accuracy?",
        "question": "Does the guide choose better sources than chance does, at equal cost?",
        "images": "10,000 CIFAR-10 training images of 24 px; bank of the same 10,000, queries 5,000 others held out",
        "protocol": "k-NN, k = 200, T = 0.2, cosine", "command": "stopgrad study main --scale small --seeds 3",
        "environment": {"versions": {"python": "3.11.7", "torch": "2.15.0"}, "device": "a CPU", "cpu_count": 2},
        "complete": True, "num_cells": 3 * num_arms, "num_done": 3 * num_arms, "arms": arms, "comparisons": comparisons,
        "resolution": 0.016,
    }  # fmt: skip


def broken():
    """All that can be missing or strange at once."""
    found = invented(num_arms=7)
    arms = found["arms"]
    arms[0]["words"] = '<script>alert(1)</script> & "quoted" \x01'
    arms[1]["words"] = "word" * 80
    arms[2] |= {"figures": {}, "verdicts": {}, "curve": [], "seconds": None, "passes": None, "untrained_knn": None,
                "failed": [{"seed": s, "error": "LossError: <loss> " + "x" * 200} for s in range(3)]}  # fmt: skip
    arms[4]["figures"]["knn_top1"] = {"mean": math.nan, "std": math.inf, "values": [math.nan]}
    arms[4]["curve"][3]["knn_top1"] = math.inf
    arms[5] |= {"seeds": [0], "figures": {"knn_top1": spread(0.4, 0, 1)}, "untrained_knn": 0.31, "settings": {}}
    arms[6] = {"name": "bare"}
    found["comparisons"] = [
        {**found["comparisons"][0], "interval": None, "verdict": "too few seeds", "n": 1},
        {**found["comparisons"][1], "difference": None, "interval": None, "rival": "not there"},
        {**found["comparisons"][2], "question": "q" * 300, "figure": "linear_top1"},
        {**found["comparisons"][3], "figure": "projection_std", "interval": [math.nan, 1.0]},
        {"arm": "arm_0", "rival": "arm_1"},
    ]
    return found | {"complete": False, "num_done": 12, "num_cells": 39, "resolution": None}


def text_of(figure):
    return " ".join(ET.parse(figure).getroot().itertext())


@pytest.mark.slow
def test_a_full_study(tmp_path):
    page, figure = tmp_path / "page.html", tmp_path / "figure.svg"
    results = invented()
    before = copy.deepcopy(results)
    draw_study(results, page, figure)
    assert results == before
    assert page.stat().st_size < 4_000_000
    assert "Differences under 1.6 points cannot be told" in text_of(figure)
    assert "3 collapsed" in text_of(figure)
    assert "Arrow: below the scale" in text_of(figure)
    for width in (1200, 390):
        with opened_page(page, width=width) as (tab, errors, requests):
            tab.wait_for_function(DRAWN)
            assert tab.locator("[data-scatter] .scatterlayer .trace").count() == 3 * 5
            assert tab.locator("[data-chart='knn_top1'] .scatterlayer .trace").count() == 5
            assert tab.locator("[data-chart='guide_margin'] .scatterlayer .trace").count() == 1
            assert tab.locator(".forest circle").count() == 4
            assert "under 1.6 points" in tab.inner_text("#comparisons")
            assert "collapsed \N{MULTIPLICATION SIGN} 3" in tab.inner_text("#arms")
            assert "k = 200" in tab.inner_text("#arms")
            tab.select_option("#accuracy", "linear_top1")
            tab.select_option("#x-axis", "passes")
            tab.click("#curves .keys button >> nth=1")
            tab.wait_for_function(
                "document.querySelector('[data-chart]').data.filter((t) => t.opacity === 1).length === 1"
            )
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert not errors
            assert not requests


@pytest.mark.slow
def test_what_is_missing_or_strange_breaks_nothing(tmp_path):
    page, figure = tmp_path / "page.html", tmp_path / "figure.svg"
    draw_study(broken(), page, figure)
    assert "partial: 12 of 39 cells" in text_of(figure)
    with opened_page(page, width=390) as (tab, errors, _):
        tab.wait_for_function(DRAWN)
        assert "partial: 12 of 39 cells, 3 failed" in tab.inner_text("header")
        assert "<script>alert(1)</script>" in tab.inner_text("#arms")
        assert "LossError: <loss>" in tab.inner_text("#arms")
        assert "too few seeds" in tab.inner_text("#comparisons")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert not errors


@pytest.mark.parametrize("results", [
    {"title": "Nothing yet", "arms": [], "comparisons": []}, {"arms": [{"name": "a"}]}, {},
    {**invented(2, 0), "arms": [{**arm, "curve": []} for arm in invented(2)["arms"]]},
    {**invented(2, 0), "arms": [{**arm, "figures": {}} for arm in invented(2)["arms"]]},
    {"comparisons": [{"arm": "a", "rival": "b", "difference": 0.0, "interval": [0.0, 0.0]}]},
])  # fmt: skip
def test_little_is_enough(results, tmp_path):
    draw_study(results, tmp_path / "page.html", tmp_path / "figure.svg")
    assert text_of(tmp_path / "figure.svg").strip()


@pytest.mark.parametrize("results", [invented(20, 15), broken()], ids=["many", "broken"])
def test_words_in_the_figure_do_not_overlap(results, tmp_path):
    draw_study(results, tmp_path / "page.html", tmp_path / "figure.svg")
    with opened_page(tmp_path / "figure.svg", width=1000) as (tab, _, _):
        boxes = tab.evaluate("""() => [...document.querySelectorAll("text")].map((t) => {
            const b = t.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height, t.textContent]; })""")
        height = tab.evaluate("document.documentElement.getBBox().height")
    for place, (left, top, right, bottom, words) in enumerate(boxes):
        assert left >= 0, words
        assert right <= 1000, words
        assert bottom <= height, words
        for other in boxes[:place]:
            # Lines' boxes are a little higher than letters.
            apart = left >= other[2] or right <= other[0] or top + 3 >= other[3] or bottom - 3 <= other[1]
            assert apart, (words, other[4])


def test_the_legend_has_the_verdicts_in_full(tmp_path):
    draw_study(invented(20, 15), tmp_path / "page.html", tmp_path / "figure.svg")
    assert ">no significant difference</tspan>" in (tmp_path / "figure.svg").read_text()


def test_the_scale_of_a_forest():
    forest = forest_of(
        [{"difference": 0.01, "interval": [-0.01, 0.03]}, {"difference": -0.02, "interval": [-0.03, -0.01]},
         {"difference": 0.0, "interval": [-0.9, 0.9]}, {"difference": None, "interval": None}], 100)  # fmt: skip
    assert forest["low"] < -3 < 3 < forest["high"] < 20
    wide = forest["rows"][2]
    assert wide["cut_low"]
    assert wide["cut_high"]
    assert (wide["begin"], wide["end"]) == (0, 1)
    assert forest["rows"][3]["at"] is None
    for row in forest["rows"][:2]:
        assert 0 < row["begin"] < row["at"] < row["end"] < 1
        assert (row["at"] > forest["zero"]) == (row["difference"] > 0)


@pytest.mark.parametrize(("low", "high"), [(-0.031, 0.02), (0, 1), (12.9, 58), (-1e-9, 1e-9), (3, 3), (-2500, 9)])
def test_ticks_are_few_and_within(low, high):
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


def test_wrapped_words_keep_within():
    assert wrapped("", 100, 12, 2) == []
    assert wrapped("two words", 1000, 12, 2) == ["two words"]
    assert wrapped("x" * 500, 100, 12, 2)[-1].endswith("…")
    assert len(wrapped("many words " * 50, 100, 12, 3)) == 3
    assert "".join(wrapped("a long-winded explanation", 60, 12, 9)).replace(" ", "") == re.sub(
        r"\s", "", "a long-winded explanation"
    )


def test_an_arm_that_did_not_collapse_is_not_marked_as_bad():
    (verdict,) = module._arm({"name": "a", "verdicts": {"not_collapsed": 3}}, 0)["verdicts"]
    assert verdict == {"words": "not collapsed", "num": 3, "tone": "good"}


def test_baselines_are_those_measured_by_the_protocol_of_the_table():
    arms = [module._arm({"name": "a", "untrained_knn": 0.69}, 0)]
    rows = module._baselines({"untrained_knn": 0.5, "pixels_knn": None}, arms)
    assert [(row["words"], row["value"]) for row in rows] == [("untrained network", 0.5)]
    # Measured by the monitor alone, they stand nowhere.
    assert module._baselines({"untrained_knn": None, "pixels_knn": None}, arms) == []


def test_a_collapse_under_way_is_told_from_one_that_is_done():
    from stopgrad.report.parts.study_figure import _fallen_words

    assert _fallen_words({"verdicts": {"partly_collapsed": 3}}) == "collapsing"
    assert _fallen_words({"verdicts": {"partly_collapsed": 1, "collapsed": 2}}) == "collapsing"
    assert _fallen_words({"verdicts": {"collapsed": 2, "not_collapsed": 1}}) == "collapsed"
