import re
from unittest.mock import Mock

import pytest
import torch
from recorder import Recorder

from stopgrad.artifacts import resume
from stopgrad.artifacts.resume import check_same_command, checked_state
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.distributed.rank import Rank
from stopgrad.errors import CheckpointError


def resumed(before, now, method="simsiam", **given):
    """What is warned of; each is a number of processes, what they see, and groups."""
    config = Config().replace(batch_size=12, method=method)
    groups_before, groups = (kind[2] if len(kind) > 2 else 0 for kind in (before, now))
    state = {
        "config": config.replace(devices=before[0], batch_groups=groups_before).flat(),
        "statistics": before[1], "fingerprint": "f",
        "batch_size": 12, "precision": "fp32",
    }  # fmt: skip
    run, recorder = Mock(spec=RunDir, path="RUN", newest_checkpoint=lambda: (state, [])), Recorder()
    ours = {"fingerprint": "f", "batch_size": 12, "statistics": now[1], "precision": "fp32", **given}
    config = config.replace(devices=now[0], batch_groups=groups)
    assert checked_state(run, config, Rank(0, now[0]), recorder, **ours) is state
    return recorder.warned


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ((1, "local"), (1, "global"), None),
        ((2, "local"), (2, "local"), None),
        ((2, "global"), (2, "global"), None),
        ((1, "local"), (2, "global"), "by 1 process and goes on with 2 processes (batch_statistics global): a step co"),
        ((2, "global"), (1, "local"), "the same to rounding"),
        ((4, "global"), (3, "global"), "the same to rounding"),
        ((1, "local"), (2, "local"), "which is another training. Images are neither skipped nor repeated"),
        ((2, "local"), (1, "local"), "by 2 processes (batch_statistics local) and goes on with 1 process: BatchNorm"),
        ((2, "local"), (2, "global"), "another training"),
        # A checkpoint of an earlier version does not say it.
        ((2, None), (2, "local"), None),
        ((2, None), (1, "local"), "(batch_statistics unknown) and goes on with 1 process: BatchNorm"),
    ],
)
def test_how_exact_it_is_to_go_on_with_other_processes(before, now, words):
    warned = resumed(before, now)
    assert len(warned) == (words is not None)
    assert words is None or words in warned[0]


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (
            (2, "local", 0),
            (1, "local", 0),
            r"by 2 processes .*nor repeated. With batch_groups = 2 it goes on ex",
        ),
        ((4, "local", 0), (2, "local", 0), r"With batch_groups = 4 it goes on exactly\.$"),
        (
            (2, "local", 0),
            (1, "local", 2),
            r"with 1 process \(batch_groups 2\): a step .* to rounding\.$",
        ),
        (
            (1, "local", 2),
            (2, "local", 0),
            r"by 1 process \(batch_groups 2\) and goes on with 2 processes .*: a step",
        ),
        ((2, "local", 4), (1, "local", 4), r"by 2 processes \(batch_groups 4\) and .* to rounding\.$"),
        ((1, "local", 2), (1, "local", 0), r"goes on with 1 process: BatchNorm.* With batch_groups = 2 it goes on"),
        ((2, "global", 0), (1, "local", 2), r"which is another training. Images are neither skipped nor repeated\.$"),
        ((4, "local", 0), (3, "local", 0), r"neither skipped nor repeated\.$"),
        ((2, None, 0), (1, "local", 0), r"neither skipped nor repeated\.$"),
        ((1, "local", 2), (1, "local", 2), None),
    ],
)
def test_groups_that_are_as_processes_were(before, now, words):
    warned = resumed(before, now)
    assert len(warned) == (words is not None)
    assert words is None or re.search(words, warned[0])


def test_no_groups_are_advised_where_a_method_takes_none():
    assert "batch_groups" not in resumed((2, "local"), (1, "local"), method="moco")[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch_size": 9}, r"steps of 12 images, which do not divide among 3 processes: .* as before \(2\)"),
        ({"fingerprint": "g"}, "other images"),
    ],
)
def test_what_cannot_go_on(given, words):
    with pytest.raises(CheckpointError, match=words):
        resumed((2, "local"), (3, "local"), **given)


def test_processes_may_have_their_own_places_and_must_have_the_same_settings(monkeypatch):
    asked = []
    monkeypatch.setattr(resume, "check_same", lambda values, *_: asked.append(values))
    config = Config().replace(path="/here", workers=3)
    check_same_command(config, Rank(), torch.device("cpu"), precision="bf16", resume=True)
    assert {"path", "workers"}.isdisjoint(asked[0])
    # As chosen for the hardware, which may be another in each.
    chosen = {"precision": "bf16", "batch_statistics": "local", "resume": True, "lr": 0.03}
    assert {name: asked[0][name] for name in chosen} == chosen
