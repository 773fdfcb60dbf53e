"""Cells are distinguished by version, scale and images; images that changed are refused."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from recorder import Recorder

import stopgrad.studies.conduct as module
from stopgrad.data.sources import ArraySource, Splits
from stopgrad.errors import DataError, Interrupted
from stopgrad.studies import worker
from stopgrad.studies.cells import CellStore, cells_of, pixels_digest
from stopgrad.studies.conduct import plan_study
from stopgrad.studies.scales import scale_of
from stopgrad.studies.study import Study

NUM = 50_000
ONE = {"arms": ["simsiam_symmetric_2v"], "seeds": 1}


def images(first=0, grey=0):
    return ArraySource(np.full((NUM, 1, 1), grey, np.uint8), [first, 1 - first] * (NUM // 2), ["a", "b"])


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A plan of one cell on images of one's choice."""

    def plan(first=0, grey=0, scale="small", data="set", study="main", **given):
        monkeypatch.setattr(module, "open_images", lambda _: Splits("set", images(first, grey), images(first, grey)))
        return plan_study(study, scale=scale, data=data, out=tmp_path, **{**ONE, **given})

    return plan


def result(cell, *, notes=True):
    health = dict.fromkeys(("feature_std", "effective_rank", "projection_std", "projection_effective_rank"), 1.0)
    return {
        "knn_top1": 0.5, "linear_top1": 0.6, "knn": {}, "verdict": "not_collapsed", "final": health, "untrained": {},
        "passes": 6.0, "seconds": 2.0, "cpu_seconds": 1.0, "curve": [], "environment": {},
        **({"images": asdict(cell.images)} if notes else {}),
    }  # fmt: skip


@pytest.mark.parametrize("notes", [True, False])  # cells of earlier programs note no images
def test_other_labels_are_refused(planned, notes):
    plan = planned()
    plan.store.write(plan.cells[0], result(plan.cells[0], notes=notes))
    assert planned().missing == []
    with pytest.raises(DataError, match=r"'other' has other images .* labels differ.*another --out"):
        planned(first=1, data="other")


@pytest.mark.parametrize("notes", [True, False])
def test_another_scale_or_judge_is_another_cell_of_the_same_images(planned, notes):
    plan = planned(epochs=52)
    plan.store.write(plan.cells[0], result(plan.cells[0], notes=notes))
    # The settings are the same: the number of images tells the scales apart.
    for other in (planned(scale="long"), planned(epochs=52, judged_by="test"), planned(scale="full")):
        assert [cell.key for cell in other.missing] == [cell.key for cell in other.cells]


def test_other_pixels_of_the_same_labels_are_refused(planned):
    plan = planned()
    plan.store.write(plan.cells[0], result(plan.cells[0]))
    with pytest.raises(DataError, match="the pixels are not"):
        planned(grey=7)


def test_other_pixels_are_refused_to_a_cell_that_was_stopped(planned):
    plan = planned()
    note = plan.store.begun_on(plan.cells[0])
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps(asdict(plan.cells[0].images)))
    assert len(planned().missing) == 1
    with pytest.raises(DataError, match="the pixels are not"):
        planned(grey=7)


def test_what_images_a_run_is_of_is_noted_until_its_result_is_there(tmp_path, monkeypatch):
    def stopped(*_):
        raise Interrupted("by SIGTERM")

    request = {"processes": 1, "settings": {}, "data": "", "images": {"num": 0, "num_held_out": 360, "pixels": "ab"},
               "run": str(tmp_path / "run"), "begun_on": str(tmp_path / "runs" / "run.images.json")}  # fmt: skip
    note = tmp_path / "runs" / "run.images.json"
    monkeypatch.setattr(worker, "run_cell", stopped)
    with pytest.raises(Interrupted):
        worker._work(request, Recorder())
    assert json.loads(note.read_text())["pixels"] == "ab"
    monkeypatch.setattr(worker, "run_cell", lambda *_: {"knn_top1": 0.5})
    (tmp_path / "run").mkdir()
    worker._work(request, Recorder())
    assert not note.exists()


def test_sets_of_photos_share_a_folder_under_names_of_their_own(planned):
    given = {"study": "adapt", "scale": "photos", "arms": ["start"]}
    plan = planned(data="petals", **given)
    plan.store.write(plan.cells[0], result(plan.cells[0]))
    assert len(planned(first=1, data="leaves", **given).missing) == 1
    with pytest.raises(DataError, match="labels differ"):
        planned(first=1, data="elsewhere/petals", **given)


def test_every_scale_and_judge_has_keys_of_its_own():
    plain = Study("main", "", "", [module.study_of("main").arm("byol_gsg_4v")])
    keys = [
        cells_of(plain, scale_of(name), [0], judged_by=judge, labels="l")[0].key
        for name in ("digits", "small", "long", "full") for judge in ("held out", "test")
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    known = cells_of(plain, scale_of("small"), [0], labels="l", name="set", pixels="p")[0]
    assert known.key == cells_of(plain, scale_of("small"), [0], labels="l")[0].key


def test_a_digest_of_pixels_tells_how_pictures_are_stored():
    assert pixels_digest(images()) == pixels_digest(images(first=1))
    assert pixels_digest(images()) != pixels_digest(images(grey=1))
    assert len(pixels_digest(ArraySource(np.zeros((1, 2, 2), np.uint8)))) == 16


def test_a_file_that_cannot_be_read_hides_nothing(planned):
    plan = planned()
    plan.store.write(plan.cells[0], result(plan.cells[0]))
    (plan.store.cell_dir / "damaged.json").write_text("[")
    (plan.store.cell_dir / "older.json").write_text('{"version": 0}')
    assert [key for key, _ in CellStore(plan.store.folder).kept()] == [plan.cells[0].key]
