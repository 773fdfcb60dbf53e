import json

import pytest
from photos import write_photos

import stopgrad
from stopgrad.cli.main import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from conftest import TINY

    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        stopgrad.pretrain(out=folder / f"run-{seed}", steps=3, seed=seed, **TINY)
    return folder


@pytest.mark.slow
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


def test_report_of_an_encoder_on_images(trained, tmp_path, capsys):
    encoder, photos = str(trained / "run-0"), str(tmp_path / "photos")
    write_photos(tmp_path / "photos", num=40)
    (tmp_path / "photos" / "a" / "broken.png").write_bytes(b"no image")
    page = tmp_path / "page.html"
    assert run(["report", encoder, photos, "--out", str(page), "--duplicates", "0.999"]) == 0
    output = capsys.readouterr().out
    for words in ("Skipped 1 unreadable", "k-NN ", "leave-one-out", "at cosine 0.999", f"Page {page}"):
        assert words in output
    file = str(trained / "run-0" / "encoder.safetensors")
    assert run(["report", file, photos, "--out", str(page), "--overwrite", "--images", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["page"] == str(page)
    assert found["num_images"] + len(found["skipped"]) == 20
    assert found["health"]["state"]
    assert set(found["knn"]) == {"accuracy", "low", "high", "protocol"}
    assert found["duplicates"]["threshold"] == 0.995


def test_misuse_of_report(trained, tmp_path, capsys):
    encoder, photos, page = str(trained / "run-0"), str(tmp_path / "photos"), str(tmp_path / "page.html")
    write_photos(tmp_path / "photos", num=4)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.html").touch()
    for code, words, message in (
        (2, [encoder, photos], "give --out"),
        (2, [photos], "stopgrad report"),
        (2, ["timm:resnet18"], "give them too"),
        (2, [encoder, photos, "--data", photos, "--out", page], "once"),
        (2, [encoder, encoder, "--out", page], "stopgrad compare"),
        (2, [encoder, photos, "--out", str(tmp_path / "there.html")], "exists"),
        (2, [encoder, photos, "--out", str(tmp_path / "none" / "page.html")], "no folder"),
        (2, [encoder, photos, "--out", page, "--duplicates", "2"], "duplicates = 2"),
        (1, [encoder, str(tmp_path / "none"), "--out", page], "does not exist"),
        (1, [encoder, str(tmp_path / "empty"), "--out", page], "holds no images"),
        (1, ["none.pth", photos, "--out", page], "does not exist"),
        (1, ["timm:none", photos, "--out", page], "unknown backbone"),
    ):
        assert run(["report", *words]) == code, words
        assert message in capsys.readouterr().err, words
    assert run(["report", encoder, "--points", "50", "--duplicates", "0.9"]) == 0
    assert "--duplicates has no effect" in capsys.readouterr().err


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


@pytest.mark.slow
def test_the_end_of_a_run_names_its_page(tmp_path, tiny, capsys):
    flags = [
        part for name, value in tiny.items() if name != "report" for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    assert run(["pretrain", "--out", str(tmp_path / "run"), "--steps", "2", *flags]) == 0
    assert f"Page {tmp_path / 'run' / 'report.html'}" in capsys.readouterr().out
