"""Runs that were begun when there were more settings and guides."""

import importlib
import shutil

import pytest
import torch
from recorder import Recorder
from safetensors.torch import load_file

import stopgrad
from stopgrad.artifacts.checkpoint import load_checkpoint, save_checkpoint
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import SETTINGS, Config
from stopgrad.errors import ConfigError
from stopgrad.methods.plugins import find_guide
from stopgrad.removed import CANDIDATES, GUIDES, removed_words
from stopgrad.removed import SETTINGS as REMOVED
from stopgrad.settings import GUIDE_NAMES

# As they stood in every config.toml and checkpoint.
IDLE = {"guide_distance": "raw", "guide_softness": 0.0, "guide_softness_schedule": "constant", "guide_neighbours": 1,
        "guide_skip": 0}  # fmt: skip
GONE = [
    {"guide_distance": "normalised"},
    {"guide_softness": 0.5},
    {"guide_softness_schedule": "cosine"},
    {"guide_neighbours": 5},
    {"guide_skip": 5},
    {"guide": "nearest_of_all"},
    {"guide": "random_of_all"},
    {"guide": "nearest_in_batch"},
    {"guide": "nearest_in_memory"},
    {"guide": "random_views", "guide_keep": 0.5, "guide_keep_by": "hard"},
    {"guide": "nearest_in_batch", "guide_keep": 0.5},
]
STEPS = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from conftest import TINY

    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = {**TINY, "steps": STEPS, "checkpoint_every_steps": 2, "baselines": False, "devices": 1, "image_size": 8}
    return stopgrad.pretrain(out=out, reporter=Recorder(), **arguments).path


def earlier(run, out, **settings):
    """The run as an earlier version left it after two steps, had it had these settings."""
    shutil.copytree(run, out)
    old = {**IDLE, **settings}
    shown = {name: f'"{value}"' if isinstance(value, str) else value for name, value in old.items()}
    lines = (out / "config.toml").read_text().splitlines()
    lines = [line for line in lines if line.partition(" = ")[0] not in old]
    place = lines.index("[objective]") + 1
    lines[place:place] = [f"{name} = {value}" for name, value in shown.items()]
    (out / "config.toml").write_text("\n".join(lines))
    (out / "checkpoints" / f"step-{STEPS:08}.ckpt").unlink()
    checkpoint = out / "checkpoints" / "step-00000002.ckpt"
    state = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, {**state, "config": {**state["config"], **old}})
    return out


def test_the_names_are_those_that_are_gone():
    assert {name: idle for name, (idle, _) in REMOVED.items()} == IDLE
    assert not set(REMOVED) & set(SETTINGS)
    assert not set(GUIDES) & set(GUIDE_NAMES)


def test_what_they_have_become_is_there():
    for candidate in (*GUIDES.values(), *(candidate for _, candidate in REMOVED.values()), "hard_half"):
        assert callable(find_guide(f"{CANDIDATES}:{candidate}"))
        assert hasattr(importlib.import_module(CANDIDATES), candidate)
    assert removed_words("guide", "nearest_views") == removed_words("epochs") == ""


def test_a_run_without_them_goes_on_to_the_same_weights(run, tmp_path):
    old = earlier(run, tmp_path / "old")
    recorder = Recorder()
    stopgrad.pretrain(out=old, resume=True, reporter=recorder)
    assert f"Resumed at step 2 of {STEPS}." in recorder.said
    before, after = (load_file(place / "encoder.safetensors") for place in (run, old))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("settings", GONE, ids=str)
def test_a_run_with_one_of_them_is_looked_at_but_not_resumed(run, tmp_path, settings):
    old = earlier(run, tmp_path / "old", **settings)
    with pytest.raises(ConfigError, match=rf"was removed: .*{CANDIDATES}:\w+.*encoder still loads"):
        stopgrad.pretrain(out=old, resume=True)
    with pytest.raises(ConfigError, match="was removed"):
        stopgrad.pretrain(out=tmp_path / "new", config=old / "config.toml")
    weights = load_file(run / "encoder.safetensors")
    for place in (old, old / "checkpoints" / "step-00000002.ckpt"):
        assert stopgrad.load_encoder(place).backbone.state_dict().keys() == weights.keys()
    shown = RunDir(old).read_config().objective.guide
    assert shown == (f"{CANDIDATES}:{GUIDES[settings['guide']]}" if settings.get("guide") in GUIDES else shown)


def test_the_page_of_an_earlier_run(run, tmp_path):
    old = earlier(run, tmp_path / "old", guide="nearest_in_memory", guide_softness=0.5)
    stopgrad.write_report(old, out=tmp_path / "page.html", points=20)
    assert f"guide {CANDIDATES}:NearestInMemory" in (tmp_path / "page.html").read_text()


def test_in_python_too():
    with pytest.raises(ConfigError, match="guide_softness was removed"):
        Config().replace(guide_softness=0.5)
    with pytest.raises(ConfigError, match="guide = 'nearest_in_batch' was removed"):
        Config().replace(guide="nearest_in_batch")
