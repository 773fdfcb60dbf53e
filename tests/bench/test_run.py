"""A benchmark of a few images, rounds, medians and errors."""

import json
import time

import pytest
import torch

from stopgrad.bench import cases
from stopgrad.bench.clock import PeakMemory, Window, seconds_a_call
from stopgrad.bench.tables import ratios_of, table_of, what_holds_it_back
from stopgrad.cli.bench import print_table
from stopgrad.cli.main import run
from stopgrad.errors import ConfigError

SIZE = ["--rounds", "2", "--seconds", "0.02", "--images", "32", "--batch-size", "8", "--bank", "50"]


@pytest.mark.slow
def test_a_tiny_run(capsys):
    """Training is the real one; the table shows what JSON holds."""
    assert run(["bench", "--only", "training", "--json", *SIZE]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert "made-up JPEGs" in err
    assert "about 1 min" in err
    lines = {(line["arm"], line["what"], line["unit"]): line for line in result["rows"]}
    step = lines["training", "step", "images/s"]
    assert step["n"] == 2
    assert step["limit"].startswith("largest matrix product")
    assert 0 < step["share_of_limit"] < 1
    epoch = lines["training", "an epoch from files", "images/s"]
    assert 0 < epoch["median"] < step["median"]
    shares = [lines["training", phase, "% of the step"]["median"] for phase in ("loading", "augmentation", "network")]
    assert sum(shares) == pytest.approx(100)
    assert lines["training", "peak memory", "MB"]["median"] > 50
    assert result["holds_back"].startswith("training is held back by")
    assert {"versions", "device", "cpu_count", "memory_gb", "command", "size"} <= set(result)
    print_table(result)
    table = capsys.readouterr().out
    assert "an epoch from files" in table
    assert "% of the largest matrix product" in table
    assert "large copy" in table
    assert result["holds_back"] in table


@pytest.mark.slow
def test_another_network_and_size_beside_timms_own_loop(capsys):
    arguments = ["--only", "embedding", "--peers", "--backbone", "resnet10t", "--image-size", "64", "--json", *SIZE]
    assert run(["bench", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["network"] == {"backbone": "resnet10t", "image_size": 64}
    lines = {(line["arm"], line["what"]): line for line in result["rows"]}
    for arm in ("embedding", "timm_embedding"):
        assert lines[arm, "files to features"]["unit"] == "images/s"
        assert lines[arm, "files to features"]["share_of_limit"] > 0
    assert lines["timm_embedding", "its batches"]["min"] >= 1
    (ratio,) = result["ratios"]
    assert (ratio["ours"], ratio["n"]) == ("embedding", 2)
    assert "timm's own loop" in ratio["peer"]
    # Without peers it is compared with nothing.
    assert cases.arms_of(["embedding"]) == ["embedding"]
    assert cases.arms_of(["embedding"], peers=True) == ["embedding", "timm_embedding"]


@pytest.mark.slow
def test_a_backbone_for_rows_that_have_their_own(capsys):
    assert run(["bench", "--only", "knn", "--backbone", "resnet18", *SIZE]) == 0
    assert "backbone and image_size have no effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "resnet1O"], "unknown backbone 'resnet1O'"),
        (["--image-size", "-1"], "--image-size -1: must be at least 0"),
        (["--only", "decod"], "did you mean 'decode'?"),
        (["--only", "simsiam"], "add --peers"),
        (["--rounds", "0"], "at least 1"),
        (["--seconds", "0"], "above 0"),
        (["--recipe", "digit"], "did you mean 'digits'?"),
    ],
)
def test_wrong_usage(capsys, arguments, message):
    assert run(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_no_data(capsys):
    assert run(["bench", "nowhere", "--only", "decode"]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_peer_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(cases, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'needs lightly: pip install "stopgrad\[peers\]"'):
        cases.choose_rows([], peers=True)


def test_the_rows():
    usual = ["decode", "cache", "batches", "augmentation", "training", "embedding", "knn"]
    assert cases.choose_rows([], peers=False) == usual
    for row in cases.ROWS.values():
        assert {*row.arms, *row.beside} <= set(cases.ARMS)
        assert {arm for pair in row.ratios for arm in pair} <= set(row.arms)
    # An arm of several rows is measured once.
    assert cases.arms_of(["four_views", "two_views"]) == ["four_views", "paper", "source_first"]


def test_ratios_are_of_the_same_round():
    def one(ours, peer):
        figure = {"what": "views", "unit": "views/s", "flops": 2e9, "precision": "fp32", "bytes": 0.0}
        limits = [{"what": "largest matrix product, fp32", "unit": "GFLOP/s", "value": 100.0, "flops": 0.0,
                   "bytes": 0.0, "precision": "fp32"}]  # fmt: skip
        return {
            "limits": {"figures": limits, "memory_mb": 1.0},
            "views_32": {"figures": [{**figure, "value": ours}], "memory_mb": 10.0},
            "lightly_views_32": {"figures": [{**figure, "value": peer}], "memory_mb": 20.0},
        }

    rounds = [one(10.0, 5.0), one(20.0, 5.0), one(9.0, 3.0)]
    (ratio,) = ratios_of(rounds, ["views_32"])
    assert (ratio["n"], ratio["median"], ratio["min"], ratio["max"]) == (3, 3.0, 2.0, 4.0)
    line = table_of(rounds, ["views_32"])[1]
    assert (line["median"], line["share_of_limit"]) == (10.0, pytest.approx(0.2))
    assert what_holds_it_back(rounds, ["views_32"]) == ""


def test_a_window_leaves_the_warm_up_out():
    took = iter([0.2, 0.01, 0.01, 0.01])

    def work():
        time.sleep(next(took, 0.01))

    assert seconds_a_call(work, 0.02) < 0.1
    window = Window(0.0, min_steps=3)
    for _ in range(4):
        assert not window.done
        window.step()
    assert window.done
    assert window.num_steps == 3


def test_peak_memory():
    with PeakMemory() as before:
        pass
    with PeakMemory() as memory:
        torch.ones(64 * 2**18)
    assert memory.megabytes > 64
    assert before.megabytes > 0
