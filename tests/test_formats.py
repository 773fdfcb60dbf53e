"""Every format, channel count and depth, from files to a page of neighbours."""

import json
from pathlib import Path

import numpy as np
import pytest
from formats import FORMATS, SMALL, write_folder

import stopgrad
from stopgrad.report.search import write_search_page
from stopgrad.retrieval.query import search


@pytest.mark.parametrize("name", FORMATS)
def test_from_files_to_a_page(tmp_path, name):
    data = write_folder(tmp_path / "data", name)
    channels, depth = FORMATS[name][3]
    run = stopgrad.pretrain(data, out=tmp_path / "run", **SMALL)
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    spec = json.loads((tmp_path / "run" / "encoder.json").read_text())
    assert (spec["pixels"]["channels"], spec["pixels"]["depth"], len(spec["mean"])) == (channels, depth, channels)
    assert run.metrics["skipped"] == []
    features = run.encoder.embed(data)
    assert features.shape == (24, 128)
    assert np.isfinite(features.numpy()).all()
    # One query finds itself first where it is a copy, and its picture is on the page.
    query = next(data.rglob(f"000{FORMATS[name][0]}"))
    copy = tmp_path / f"query{query.suffix}"
    copy.write_bytes(query.read_bytes())
    result = search(tmp_path / "run", copy, top=3, keep=False)
    assert result.answers[0].hits[0].name == str(query)
    assert result.answers[0].hits[0].cosine > 0.999
    write_search_page(result, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("data:image") >= 4


def test_the_document_names_every_format():
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for suffix, *_ in FORMATS.values():
        kind = {".jpg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".dcm": "DICOM", ".npy": "npy"}.get(
            suffix, suffix[1:].upper()
        )
        assert any(kind.lower() in row.lower() for row in rows), suffix
