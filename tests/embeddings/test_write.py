"""A file of embeddings holds what `Encoder.embed` gives, in order, whatever happened on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from photos import write_photos, write_run

from stopgrad import embed_to_file, load_encoder, read_embeddings
from stopgrad.data.open import open_images
from stopgrad.data.sources import ArraySource
from stopgrad.embeddings.paths import files_of
from stopgrad.encoder.encoder import encoder_digest
from stopgrad.errors import CheckpointError, ConfigError, DataError, Interrupted

SUFFIXES = (".parquet", ".npy", ".csv")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_photos(root, num=48, splits=("train", "test"))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    return write_run(tmp_path_factory.mktemp("runs") / "run", data)


def expected(run, data, **options):
    splits = open_images(data)
    encoder = load_encoder(run)
    return torch.cat([encoder.embed(part, **options) for part in (splits.train, splits.test)])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_to_embed_in_order(tmp_path, run, data, suffix):
    out = tmp_path / f"e{suffix}"
    done = embed_to_file(run, data, out, batch_size=7)
    found = read_embeddings(out)
    assert torch.equal(found.vectors, expected(run, data, batch_size=7))
    names = [str(path) for split in ("train", "test") for path in sorted((data / split).rglob("*.png"))]
    assert list(found.names) == names
    assert [found.class_names[label] for label in found.labels] == [name.split("/")[-2] for name in names]
    assert list(found.splits) == ["train"] * 24 + ["test"] * 24
    assert (done.num_images, done.dim, done.skipped, done.num_resumed) == (48, 128, [], 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in done.files)
    assert found.metadata["encoder"] == str(run)
    assert found.metadata["preprocess"]["size"] == 12


def test_the_layout_of_parquet(tmp_path, run, data):
    embed_to_file(run, data, tmp_path / "e.parquet")
    schema = pq.read_schema(tmp_path / "e.parquet")
    assert schema.names == ["path", "split", "label", "class_name", "embedding"]
    # Not of fixed size: some readers know only this.
    assert schema.field("embedding").type == pa.list_(pa.float32())
    metadata = json.loads(schema.metadata[b"stopgrad"])
    assert metadata["dim"] == 128
    assert metadata["class_names"] == ["a", "b"]


def test_the_layout_of_npy(tmp_path, run, data):
    embed_to_file(run, data, tmp_path / "e.npy")
    array = np.load(tmp_path / "e.npy", allow_pickle=False)
    assert array.dtype == np.float32
    assert array.shape == (48, 128)
    names = (tmp_path / "e.names.csv").read_text().splitlines()
    assert len(names) == 49


def test_normalised(tmp_path, run, data):
    embed_to_file(run, data, tmp_path / "e.npy", normalise=True)
    assert torch.equal(read_embeddings(tmp_path / "e.npy").vectors, F.normalize(expected(run, data), dim=1))


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_split(tmp_path, run, data, split):
    embed_to_file(run, data, tmp_path / "e.parquet", split=split)
    found = read_embeddings(tmp_path / "e.parquet")
    assert torch.equal(found.vectors, load_encoder(run).embed(data / split))
    assert set(found.splits) == {split}


def test_without_data_it_takes_the_runs_own(tmp_path, run, data):
    assert embed_to_file(run, out=tmp_path / "e.npy").num_images == 48


def test_images_in_memory(tmp_path, run, rng):
    images = rng.integers(0, 255, (9, 8, 8, 3), dtype=np.uint8)
    embed_to_file(load_encoder(run), ArraySource(images), tmp_path / "e.csv")
    found = read_embeddings(tmp_path / "e.csv")
    assert torch.equal(found.vectors, load_encoder(run).embed(images))
    assert set(found.labels.tolist()) == {-1}
    assert found.names[3] == "image 3"


def test_unreadable_images_are_named_and_have_no_row(tmp_path, run):
    paths = write_photos(tmp_path / "d", num=20)
    # Among others, a whole batch, the last one, and the first image.
    for path in (paths[0], *paths[4:8], *paths[16:]):
        path.write_bytes(b"no image")
    done = embed_to_file(run, tmp_path / "d", tmp_path / "e.parquet", batch_size=4)
    found = read_embeddings(tmp_path / "e.parquet")
    good = [path for path in paths if path.read_bytes() != b"no image"]
    assert list(found.names) == [str(path) for path in good]
    assert [item["index"] for item in done.skipped] == [0, 4, 5, 6, 7, 16, 17, 18, 19]
    torch.testing.assert_close(found.vectors, load_encoder(run).embed(good))
    with pytest.raises(DataError, match="cannot be read: not an image"):
        embed_to_file(run, tmp_path / "d", tmp_path / "f.parquet", batch_size=4, strict=True)
    assert not list(tmp_path.glob("f.parquet*"))


def test_a_refusal_keeps_what_an_earlier_call_has_done(tmp_path, run):
    data, out = tmp_path / "data", tmp_path / "e.parquet"
    write_photos(data, num=48)[40].write_bytes(b"")
    with pytest.raises(Interrupted):
        embed_to_file(run, data, out, batch_size=4, stop=stopping_after(3))
    with pytest.raises(DataError, match="cannot be read: empty file"):
        embed_to_file(run, data, out, batch_size=4, strict=True)
    assert embed_to_file(run, data, out, batch_size=4).num_resumed >= 12
    assert [path.name for path in tmp_path.glob("e.parquet*")] == ["e.parquet"]


def stopping_after(num):
    calls = iter(range(10**6))
    return lambda: "a test" if next(calls) + 1 >= num else None


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("num", [1, 3, 5])
def test_stopped_and_resumed_it_is_the_same_file(tmp_path, run, suffix, num):
    data = tmp_path / "data"
    write_photos(data, num=48, splits=("train", "test"))[5].write_bytes(b"")
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"e{suffix}"
    embed_to_file(run, data, whole, batch_size=10)
    with pytest.raises(Interrupted, match="resumes from there"):
        embed_to_file(run, data, out, batch_size=10, stop=stopping_after(num))
    assert not out.exists()
    done = embed_to_file(run, data, out, batch_size=10)
    assert done.num_resumed >= 8 * num
    assert len(done.skipped) == 1
    for one, other in zip(files_of(whole), files_of(out), strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert not list(tmp_path.glob("*.partial*"))


def test_stopped_and_resumed_with_passes_side_by_side(tmp_path, run, data):
    """Which batches are left makes no difference to how they are computed."""
    whole, out, threads = tmp_path / "whole.npy", tmp_path / "e.npy", torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        embed_to_file(run, data, whole, batch_size=3, precision="bf16")
        with pytest.raises(Interrupted):
            embed_to_file(run, data, out, batch_size=3, precision="bf16", stop=stopping_after(7))
        assert embed_to_file(run, data, out, batch_size=3, precision="bf16").num_resumed == 21
    finally:
        torch.set_num_threads(threads)
    assert whole.read_bytes() == out.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_precision_is_kept_with_the_vectors(tmp_path, run, data, precision):
    done = embed_to_file(run, data, tmp_path / "e.npy", precision=precision)
    found = read_embeddings(tmp_path / "e.npy")
    assert done.precision == found.metadata["precision"] == precision
    assert torch.equal(found.vectors, expected(run, data, precision=precision))
    assert not torch.equal(found.vectors, expected(run, data, precision="fp32" if precision == "bf16" else "bf16"))


@pytest.mark.parametrize("where", ["append", "network"])
def test_ctrl_c_anywhere(tmp_path, run, data, monkeypatch, where):
    """Between writing rows and counting them, too."""
    whole, out = tmp_path / "whole.npy", tmp_path / "e.npy"
    embed_to_file(run, data, whole, batch_size=10)
    from stopgrad.embeddings.partial import Partial

    add, calls = Partial.add, []

    def pressed(self, vectors, done, skipped):
        calls.append(1)
        if len(calls) == 3:
            if where == "append":
                self._file.write(vectors[: len(vectors) // 2].tobytes())
            raise KeyboardInterrupt
        add(self, vectors, done, skipped)

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "add", pressed)
        with pytest.raises(Interrupted, match="Ctrl-C"):
            embed_to_file(run, data, out, batch_size=10)
    assert embed_to_file(run, data, out, batch_size=10).num_resumed > 0
    assert whole.read_bytes() == out.read_bytes()


@pytest.mark.slow
def test_killed(tmp_path, run, data, monkeypatch):
    """Rows beyond the journal, half ones too, are cut off."""
    script = (
        "import os, sys, stopgrad.embeddings.partial as partial\n"
        "from stopgrad import embed_to_file\n"
        "partial.SECONDS_BETWEEN_SAVES = 0\n"
        "add, calls = partial.Partial.add, []\n"
        "def killed(self, vectors, done, skipped):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        "        self._file.write(b'half'); self._file.flush(); os.kill(os.getpid(), 9)\n"
        "    add(self, vectors, done, skipped)\n"
        "partial.Partial.add = killed\n"
        "embed_to_file(sys.argv[1], sys.argv[2], sys.argv[3], batch_size=10)\n"
    )
    out = tmp_path / "e.npy"
    assert subprocess.run([sys.executable, "-c", script, str(run), str(data), str(out)]).returncode == -9
    assert embed_to_file(run, data, out, batch_size=10).num_resumed > 0
    embed_to_file(run, data, tmp_path / "whole.npy", batch_size=10)
    assert (tmp_path / "whole.npy").read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"seed": 1}, "another encoder_digest"),
        ({"data": 1}, "another data"),
        ({"precision": "bf16"}, "another precision"),
    ],
)
def test_a_partial_file_of_other_inputs_is_told_and_dropped(tmp_path, data, other, words):
    run = write_run(tmp_path / "run", data)
    out, options = tmp_path / "e.npy", {"batch_size": 10}
    with pytest.raises(Interrupted):
        embed_to_file(run, data, out, **options, precision="fp32", stop=stopping_after(2))
    options["precision"] = other.get("precision", "fp32")
    if "seed" in other:
        run = write_run(tmp_path / "other", data, seed=1)
    if "data" in other:
        data = tmp_path / "data"
        write_photos(data, num=48)
    with pytest.warns(UserWarning, match=f"{words}.*started over"):
        assert embed_to_file(run, data, out, **options).num_resumed == 0
    assert torch.equal(read_embeddings(out).vectors[:12], load_encoder(run).embed(data, **options)[:12])


@pytest.mark.parametrize("sizes", [(10, 9), (10, 3, 48), (5, 24)])
def test_it_goes_on_with_another_batch_size(tmp_path, run, sizes):
    data, out = tmp_path / "data", tmp_path / "e.npy"
    write_photos(data, num=48, splits=("train", "test"))[7].write_bytes(b"")
    for number, size in enumerate(sizes[:-1]):
        with pytest.raises(Interrupted):
            embed_to_file(run, data, out, batch_size=size, stop=stopping_after(1 + 2 * number))
    done = embed_to_file(run, data, out, batch_size=sizes[-1])
    assert done.num_resumed > 0
    embed_to_file(run, data, tmp_path / "whole.npy")
    found, wanted = read_embeddings(out), read_embeddings(tmp_path / "whole.npy")
    assert found.names == wanted.names
    torch.testing.assert_close(found.vectors, wanted.vectors)


def test_a_negative_batch_size_touches_nothing(tmp_path, run, data):
    out = tmp_path / "e.npy"
    with pytest.raises(Interrupted):
        embed_to_file(run, data, out, batch_size=10, stop=stopping_after(2))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="batch_size = -1: must be at least 1"):
        embed_to_file(run, data, out, batch_size=-1)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("failing", ["_write_npy", "_write_csv"])
def test_a_full_disk_leaves_no_vectors_under_anothers_name(tmp_path, run, data, monkeypatch, failing):
    out = tmp_path / "e.npy"
    embed_to_file(run, data, out)
    other = write_run(tmp_path / "other", data, seed=1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"stopgrad.embeddings.formats.{failing}", full)
        with pytest.raises(OSError, match="No space"):
            embed_to_file(other, data, out, overwrite=True)
    with pytest.raises(DataError, match="is no file of embeddings"):
        read_embeddings(out)
    assert embed_to_file(other, data, out, overwrite=True).num_resumed == 48
    assert torch.equal(read_embeddings(out).vectors, expected(other, data))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_the_partial_rows_are_let_go_of_before_they_are_removed(tmp_path, run, data, monkeypatch):
    """Windows deletes no file that is open or mapped; the lock's descriptor, the one left here, it does not have."""
    unlink, seen = Path.unlink, []

    def watched(path, **options):
        if path.suffix == ".partial":
            mapped = str(path) in Path("/proc/self/maps").read_text()
            descriptors = sum(os.path.realpath(link) == str(path) for link in Path("/proc/self/fd").iterdir())
            seen.append((mapped, descriptors))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", watched)
    for suffix in SUFFIXES:
        embed_to_file(run, data, tmp_path / f"e{suffix}")
    assert seen == [(False, 1)] * 3


@pytest.mark.parametrize("name", ["timm:resnet10t?pretrained=false&image_size=40", "run?mean=0.1,0.2,0.3", "run"])
def test_the_encoder_is_loaded_again_from_what_the_file_says(tmp_path, run, data, monkeypatch, name):
    monkeypatch.chdir(run.parent)
    encoder = load_encoder(name)
    embed_to_file(encoder, data / "test" / "a", tmp_path / "e.parquet")
    monkeypatch.chdir(tmp_path)
    found = read_embeddings(tmp_path / "e.parquet")
    again = load_encoder(found.metadata["encoder"])
    assert (again.preprocess, again.spec) == (encoder.preprocess, encoder.spec)
    assert encoder_digest(again) == found.metadata["encoder_digest"]


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"format": 1}'])
def test_a_damaged_journal(tmp_path, run, data, damage):
    out = tmp_path / "e.npy"
    with pytest.raises(Interrupted):
        embed_to_file(run, data, out, batch_size=10, stop=stopping_after(2))
    (tmp_path / "e.npy.partial.json").write_bytes(damage)
    with pytest.warns(UserWarning, match="journal is damaged"):
        assert embed_to_file(run, data, out, batch_size=10).num_resumed == 0


def test_two_at_once_are_refused(tmp_path, run, data):
    def second():
        with pytest.raises(ConfigError, match="is being written by another process"):
            embed_to_file(run, data, tmp_path / "e.npy")

    embed_to_file(run, data, tmp_path / "e.npy", stop=second)


def test_what_exists_is_refused(tmp_path, run, data):
    (tmp_path / "e.names.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"names\.csv exists: use --overwrite"):
        embed_to_file(run, data, tmp_path / "e.npy")
    assert embed_to_file(run, data, tmp_path / "e.npy", overwrite=True).num_images == 48


@pytest.mark.parametrize(
    ("out", "options", "error", "message"),
    [
        ("e.parqet", {}, ConfigError, "did you mean '.parquet'"),
        ("e", {}, ConfigError, "without suffix"),
        ("e.npy", {"split": "tset"}, ConfigError, "did you mean 'test'"),
        ("e.npy", {"images": "nowhere"}, DataError, "does not exist"),
        ("e.npy", {"device": "gpu"}, ConfigError, "unknown"),
        ("e.npy", {"encoder": "nowhere"}, CheckpointError, "does not exist"),
    ],
)
def test_bad_input(tmp_path, run, data, out, options, error, message):
    given = {"encoder": run, "images": data} | options
    with pytest.raises(error, match=message):
        embed_to_file(given.pop("encoder"), given.pop("images"), tmp_path / out, **given)
    assert not list(tmp_path.iterdir())


def test_nothing_can_be_read(tmp_path, run):
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        embed_to_file(run, tmp_path / "d", tmp_path / "e.npy")
    (tmp_path / "d" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 images can be read.*empty file"):
        embed_to_file(run, tmp_path / "d", tmp_path / "e.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_no_embeddings(tmp_path, suffix, content):
    (tmp_path / f"x{suffix}").write_bytes(content)
    with pytest.raises(DataError, match="is no file of embeddings"):
        read_embeddings(tmp_path / f"x{suffix}")
    pq.write_table(pa.table({"path": ["a"], "embedding": [[1.0]]}), tmp_path / "foreign.parquet")
    with pytest.raises(DataError, match="does not say that its format"):
        read_embeddings(tmp_path / "foreign.parquet")
    with pytest.raises(DataError, match="does not exist"):
        read_embeddings(tmp_path / f"y{suffix}")


def test_names_of_any_kind_come_back(tmp_path, run):
    images = write_photos(tmp_path / "d", num=2, classes=('<b>"é, &', "x\ny"))
    for suffix in SUFFIXES:
        embed_to_file(run, tmp_path / "d", tmp_path / f"e{suffix}")
        found = read_embeddings(tmp_path / f"e{suffix}")
        assert list(found.names) == [str(path) for path in images]
        assert list(found.class_names) == ['<b>"é, &', "x\ny"]


def test_memory_does_not_grow_with_the_images(tmp_path, run, monkeypatch):
    """Rows go to disk as they come: never more than a batch of vectors is handed over."""
    from stopgrad.embeddings.partial import Partial

    sizes, add = [], Partial.add
    monkeypatch.setattr(Partial, "add", lambda self, v, d, s: (sizes.append(len(v)), add(self, v, d, s))[1])
    embed_to_file(run, "", tmp_path / "e.parquet", split="test", batch_size=32)
    assert max(sizes) <= 32
    assert sum(sizes) == 360
