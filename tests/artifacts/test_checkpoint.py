import os

import pytest
import torch

from stopgrad.artifacts.checkpoint import load_checkpoint, save_checkpoint
from stopgrad.artifacts.files import checkpoints_in
from stopgrad.errors import CheckpointError

STATE = {
    "step": 7,
    "rate": 0.1,
    "name": "x",
    "none": None,
    "flag": True,
    "nested": {0: {"a": torch.arange(6.0).reshape(2, 3)}, "list": [1, torch.tensor(3), {"b": torch.zeros(0)}]},
    "strided": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "half": torch.randn(3).bfloat16(),
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "x.ckpt", STATE)
    assert same(load_checkpoint(tmp_path / "x.ckpt"), STATE)


def test_tensors_that_share_memory(tmp_path):
    base = torch.arange(10.0)
    save_checkpoint(tmp_path / "x.ckpt", {"a": base, "b": base[2:5]})
    assert same(load_checkpoint(tmp_path / "x.ckpt"), {"a": base, "b": base[2:5]})


def test_nothing_is_pickled(tmp_path):
    save_checkpoint(tmp_path / "x.ckpt", STATE)
    content = (tmp_path / "x.ckpt").read_bytes()
    assert not content.startswith((b"PK", b"\x80"))
    with pytest.raises(TypeError, match="holds no object"):
        save_checkpoint(tmp_path / "y.ckpt", {"a": object()})


def test_a_pickled_file_is_refused_unopened(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"a": Evil()}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "executed").exists()


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "x.ckpt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1], b"", whole[:-3] + b"\xff\x00\xff"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_a_foreign_safetensors_file(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        load_checkpoint(tmp_path / "x.ckpt")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "x.ckpt"
    save_checkpoint(path, {"step": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]


def test_newest_first(tmp_path):
    for name in ("step-00000010.ckpt", "step-00000009.ckpt", "step-123456789.ckpt", "step-x.ckpt", "other.ckpt"):
        (tmp_path / name).touch()
    assert [p.name for p in checkpoints_in(tmp_path)] == [
        "step-123456789.ckpt",
        "step-00000010.ckpt",
        "step-00000009.ckpt",
    ]
