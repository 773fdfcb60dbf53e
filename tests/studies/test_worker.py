import numpy as np
import pytest
from conftest import TINY
from recorder import Recorder

from stopgrad.artifacts.environment import machine_words
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.sources import ArraySource, Splits
from stopgrad.errors import Interrupted
from stopgrad.studies import worker as module
from stopgrad.studies.cells import Images
from stopgrad.studies.scales import scale_of


def test_the_processor_time_of_earlier_sittings_counts(tmp_path, monkeypatch):
    run, clock = RunDir(tmp_path / "run"), iter([10.0, 13.0, 50.0, 54.0, 70.0, 71.0])
    monkeypatch.setattr(module.time, "process_time", lambda: next(clock))

    def stopped(*_):
        run.make()
        raise Interrupted("by SIGTERM")

    monkeypatch.setattr(module, "_train", stopped)

    def sitting():
        with pytest.raises(Interrupted):
            module.run_cell(scale_of("digits").base, "", Images(0, 360), run.path, Recorder())
        return run.read_json(module.CPU_FILE)["cpu_seconds"]

    assert sitting() == 3
    (run.checkpoint_dir / "step_00000005.ckpt").touch()
    monkeypatch.setattr(module, "checkpoints_in", lambda folder: list(folder.iterdir()))
    assert sitting() == 7
    # Without a checkpoint it begins anew.
    monkeypatch.setattr(module, "checkpoints_in", lambda folder: [])
    assert sitting() == 1


def test_a_cell_of_photos_goes_on_where_it_stopped(tmp_path, rng):
    images = ArraySource(
        rng.integers(0, 256, (128, 16, 16, 3), dtype=np.uint8), (np.arange(128) % 2).tolist(), ("even", "odd")
    )
    splits = Splits("made up", images, images)
    # Channels and depth are for the images to say.
    config = Config().replace(**TINY, image_size=16, stem="small", steps=6, checkpoint_every_steps=2, devices=1)
    run, recorder = RunDir(tmp_path / "run"), Recorder()
    module._train(config, splits, run.path, recorder)
    for name in ("checkpoints/step-00000006.ckpt", "encoder.safetensors", "summary.json"):
        (run.path / name).unlink()
    run.write_json("environment.json", run.read_environment() | {"device": "an abacus"})
    module._train(config, splits, run.path, recorder)
    assert "Resumed at step 4 of 6." in recorder.said
    assert not any("started over" in warning for warning in recorder.warned)
    here = run.read_environment()
    assert here["begun_on"] == f"an abacus, torch {here['versions']['torch']}, fp32, to step 4"
    assert machine_words(here).endswith(f", fp32; begun on {here['begun_on']}")


def test_the_price_is_noted_along_the_way(tmp_path, monkeypatch):
    run, recorder = RunDir(tmp_path / "run"), Recorder()
    run.make()
    monkeypatch.setattr(module, "NOTE_SECONDS", -1.0)
    price = module._Price(run.path, recorder)
    price.progress("training", 1, 2, "half")
    assert run.read_json(module.CPU_FILE)["cpu_seconds"] >= 0
    assert recorder.steps == [("training", 1, 2, "half")]
