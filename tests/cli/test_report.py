import json

import pytest

import stopgrad
from stopgrad.cli.main import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from conftest import TINY

    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        stopgrad.pretrain(out=folder / f"run-{seed}", steps=3, seed=seed, **TINY)
    return folder


def test_report(trained, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(["report", str(trained / "run-0"), "--out", str(page), "--points", "50"]) == 0
    assert f"Page {page}" in capsys.readouterr().out
    assert run(["report", str(trained / "run-0"), "--out", str(page)]) == 2
    assert "exists" in capsys.readouterr().err
    assert run(["report", str(trained / "run-0"), "--points", "50", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["page"] == str(trained / "run-0" / "report.html")
    assert found["bytes"] > 1000
    # Its own page is always written anew.
    assert run(["report", str(trained / "run-0"), "--points", "50"]) == 0
    assert run(["report", str(tmp_path)]) == 2
    assert run(["report", str(trained / "run-0"), "--data", str(tmp_path / "none")]) == 1


def test_compare(trained, tmp_path, capsys):
    runs = [str(trained / f"run-{seed}") for seed in (0, 1)]
    assert run(["compare", *runs, "--out", str(tmp_path / "compare.html")]) == 0
    output = capsys.readouterr().out
    assert "k-NN, trained" in output
    assert "(2)" in output
    assert "compare.html" in output
    assert run(["compare", *runs, "--out", str(tmp_path / "compare.html")]) == 2
    capsys.readouterr()
    assert run(["compare", *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"][0]["seeds"] == [0, 1]
    assert run(["compare", runs[0]]) == 2


def test_the_end_of_a_run_names_its_page(tmp_path, tiny, capsys):
    flags = [
        part for name, value in tiny.items() if name != "report" for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    assert run(["pretrain", "--out", str(tmp_path / "run"), "--steps", "2", *flags]) == 0
    assert f"Page {tmp_path / 'run' / 'report.html'}" in capsys.readouterr().out
