import json
import signal
import threading
import time

import pytest
from recorder import Recorder

from stopgrad.caching import try_lock
from stopgrad.errors import Interrupted
from stopgrad.studies import cells as cells_module
from stopgrad.studies import process as module
from stopgrad.studies.cells import VERSION, CellStore, cells_of
from stopgrad.studies.process import Machine, run_cells
from stopgrad.studies.results import results_of
from stopgrad.studies.scales import scale_of
from stopgrad.studies.study import Arm, Comparison, Study

TWO = Machine(jobs=2)


def study_with(*rates):
    arms = [Arm(f"at_{rate:g}", f"rate {rate:g}", {"method": "simsiam", "lr": rate}) for rate in rates]
    return Study("trial", "A trial?", "...", arms, [Comparison(a.name, arms[0].name, "?") for a in arms[1:]])


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WORKER", "celled")
    return CellStore(tmp_path)


def begun(store, cell):
    return len(list(store.run_of(cell).glob("begun-*")))


@pytest.mark.slow
def test_cells_run_and_are_kept_under_their_seeds(store):
    study, scale = study_with(0.5, 1.0), scale_of("digits")
    cells = cells_of(study, scale, [0, 1, 2])
    done = []
    assert run_cells(cells, store, "", TWO, Recorder(), when_done=lambda: done.append(1)) == 0
    assert len(done) == 6
    results = results_of(study, scale, cells, store)
    assert results["complete"]
    assert results["arms"][1]["figures"]["knn_top1"]["values"] == pytest.approx([0.6, 0.61, 0.62])
    (comparison,) = (c for c in results["comparisons"] if c["figure"] == "knn_top1")
    assert comparison["difference"] == pytest.approx(0.05)
    assert comparison["verdict"] == "better"
    assert results["resolution"] == pytest.approx(0, abs=1e-6)
    two_seeds = results_of(study, scale, [cell for cell in cells if cell.seed < 2], store)
    assert two_seeds["resolution"] is None  # their interval says nothing
    assert store.read(cells[0])["threads"] == "1"  # two side by side


@pytest.mark.slow
def test_a_cell_that_fails_is_recorded_and_the_rest_go_on(store):
    study, scale = study_with(1.5, 0.5, 2.5, 4.5), scale_of("digits")
    cells = cells_of(study, scale, [0])
    assert run_cells(cells, store, "", TWO, Recorder()) == 3
    results = results_of(study, scale, cells, store)
    assert not results["complete"]
    errors = {arm["name"]: arm["failed"] for arm in results["arms"]}
    assert errors["at_1.5"] == [{"seed": 0, "error": "NonFiniteLossError: the loss is no longer finite at step 3."}]
    assert "exit code 9" in errors["at_2.5"][0]["error"]
    assert errors["at_4.5"][0]["error"] == "StopgradError: RuntimeError: out of memory"
    assert errors["at_0.5"] == []
    assert results["comparisons"] == []  # its rival failed


@pytest.mark.slow
def test_a_request_to_stop_saves_what_is_at_work(store):
    cells = cells_of(study_with(3.5), scale_of("digits"), [0, 1, 2])

    def interrupt():
        while not (begun(store, cells[0]) and begun(store, cells[1])):
            time.sleep(0.02)
        time.sleep(0.2)
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted, match="the same command resumes"):
        run_cells(cells, store, "wait", TWO, Recorder())
    assert [(store.run_of(cell) / "saved").exists() for cell in cells] == [True, True, False]
    assert all(store.read(cell) is None for cell in cells)  # an interruption is no failure


@pytest.mark.slow
def test_a_cell_that_somebody_else_stops_is_not_failed_and_not_done(store):
    cells = cells_of(study_with(5.5, 0.5), scale_of("digits"), [0])
    with pytest.raises(Interrupted, match="a signal to its cells, 1 of 2 cells done"):
        run_cells(cells, store, "", TWO, Recorder())
    assert store.read(cells[0]) is None
    assert store.read(cells[1])["seed"] == 0


@pytest.mark.slow
def test_a_failure_of_another_command_is_not_tried_again(store):
    cells = cells_of(study_with(0.5), scale_of("digits"), [0])
    store.run_dir.mkdir(parents=True)
    theirs = try_lock(store.lock_of(cells[0]), create=True)

    def fail():
        store.write(cells[0], {"error": "DataError: none"})
        theirs.close()

    other = threading.Timer(0.5, fail)
    other.start()
    run_cells(cells, store, "", TWO, Recorder())
    assert begun(store, cells[0]) == 0
    # One that was there before is.
    run_cells(cells, store, "", TWO, Recorder())
    assert begun(store, cells[0]) == 1


@pytest.mark.slow
def test_checkpoints_go_when_the_result_is_kept(store):
    (cell,) = cells_of(study_with(0.5), scale_of("digits"), [0])
    run_cells([cell], store, "", TWO, Recorder())
    assert store.read(cell)["seed"] == 0
    assert not (store.run_of(cell) / "checkpoints").exists()


def test_another_version_s_run_is_not_gone_on_with(store, monkeypatch):
    (cell,) = cells_of(study_with(0.5), scale_of("digits"), [0])
    before = store.run_of(cell)
    monkeypatch.setattr(cells_module, "VERSION", VERSION + 1)
    assert store.run_of(cell) != before


@pytest.mark.slow
def test_seconds_on_a_cpu_are_its_own_along_the_curve_too(store):
    cells = cells_of(study_with(0.5), scale_of("digits"), [0])
    run_cells(cells, store, "", TWO, Recorder())
    (arm,) = results_of(study_with(0.5), scale_of("digits"), cells, store)["arms"]
    assert arm["seconds"] == arm["curve"][-1]["seconds"] == 1.0


def test_the_time_limit_stops_too(store):
    cells = cells_of(study_with(3.5), scale_of("digits"), [0])
    with pytest.raises(Interrupted, match="time limit"):
        run_cells(cells, store, "wait", TWO, Recorder(), time_limit_seconds=0.1)


@pytest.mark.slow
def test_results_of_another_version_or_damaged_are_none(store):
    (cell,) = cells_of(study_with(0.5), scale_of("digits"), [0])
    assert not store.is_stale(cell)
    run_cells([cell], store, "", TWO, Recorder())
    assert store.read(cell)["seed"] == 0
    file = store.file_of(cell)
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": VERSION + 1}))
    assert store.read(cell) is None
    assert store.is_stale(cell)
    for damaged in ('{"version": 1, "kn', "[]", "null", f'{{"version": {VERSION}}}'):
        file.write_text(damaged)
        assert store.read(cell) is None
        assert store.is_stale(cell)


@pytest.mark.slow
def test_a_cell_that_another_command_is_at_is_left_to_it(store):
    cells = cells_of(study_with(0.5), scale_of("digits"), [0, 1])
    store.run_dir.mkdir(parents=True)
    theirs = try_lock(store.lock_of(cells[0]), create=True)

    def finish():
        while store.read(cells[1]) is None:
            time.sleep(0.02)
        store.write(cells[0], {**store.read(cells[1]), "seed": 0, "theirs": True})
        theirs.close()

    other = threading.Thread(target=finish)
    other.start()
    assert run_cells(cells, store, "", TWO, Recorder()) == 0
    other.join()
    assert store.read(cells[0])["theirs"]
    assert begun(store, cells[0]) == 0
    # Nobody is at it any more.
    try_lock(store.lock_of(cells[1])).close()


@pytest.mark.slow
def test_a_cell_that_ends_as_the_stop_comes_is_kept(store, monkeypatch):
    cells = cells_of(study_with(0.5), scale_of("digits"), [0])

    def interrupted(one):
        one.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(module.CellProcess, "_hear", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, store, "", TWO, Recorder())
    assert store.read(cells[0])["seed"] == 0


def test_each_gpu_gets_its_cells(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine = Machine(jobs=4, devices=2)
    assert [machine.variables(place)["CUDA_VISIBLE_DEVICES"] for place in range(4)] == ["0", "1", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert machine.variables(1)["CUDA_VISIBLE_DEVICES"] == "7"
