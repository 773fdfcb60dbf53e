"""Damaged files for every reader: only the program's own errors. `benchmarks/fuzz.py` does the same at length."""

import io
import json
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from formats import pillow
from fuzz import input_of, mutated, table
from fuzz_readers import OWN, READERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sharded import add, encoded, write_parquet

from stopgrad.artifacts.checkpoint import load_checkpoint
from stopgrad.artifacts.hub_folder import is_spec
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import from_toml
from stopgrad.data.decode import decode
from stopgrad.data.open import open_images
from stopgrad.data.pixels import UnreadableImageError
from stopgrad.data.shards.parquet import index_parquet, unpack
from stopgrad.data.shards.tar import index_tar
from stopgrad.embeddings.read import read_embeddings
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.weights.options import check_there, split_query, with_query

DEEP = "[" * 100_000
SLOW = {"encoder-json", "deep-images"}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """Of each reader, its valid inputs and a folder."""
    found = {}

    def of(name):
        if name not in found:
            room = tmp_path_factory.mktemp(name)
            found[name] = READERS[name].seeds(room), room
        return found[name]

    return of


def refused_or_read(name, data, room):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            READERS[name].read(data, room)
        except OWN:
            return True
    return False


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if not reader.native])
def test_damage(name, rooms):
    seeds, room = rooms(name)
    num = 10 if name in SLOW else 40

    # Derandomised: what CI reads is the same every time.
    @settings(max_examples=num, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def read(draw):
        refused_or_read(name, mutated(seeds, draw), room)

    read()


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if not reader.native])
def test_files_that_are_cut_off_anywhere(name, rooms):
    seeds, room = rooms(name)
    for end in np.linspace(0, len(seeds[0]) - 1, 4 if name in SLOW else 16).astype(int):
        refused_or_read(name, bytes(seeds[0][:end]), room)


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.text(max_size=60))
def test_any_query(text):
    try:
        path, options = split_query(f"x.pth?{text}")
    except ConfigError:
        return
    assert split_query(with_query(path, options)) == (path, options)


def test_inputs_are_a_function_of_seed_and_number():
    seeds = [b"0123456789" * 9, b"abc"]
    assert input_of(seeds, 0, 1) == b"abc"
    assert input_of(seeds, 0, 7) == input_of(seeds, 0, 7)
    assert len({input_of(seeds, 0, number) for number in range(2, 100)}) > 80
    assert input_of(seeds, 1, 7) != input_of(seeds, 0, 7)


def test_the_table_of_the_page_is_that_of_the_results():
    root = Path(__file__).parents[2]
    results = root / "benchmarks" / "results" / "fuzz.json"
    assert table(results) in (root / "docs" / "security.md").read_text("utf-8")
    assert all(
        READERS[row["reader"]].native or not row["findings"] for row in json.loads(results.read_text())["readers"]
    )


# What the fuzzer or a look at the code has found, with the smallest input.


def checkpoint_of(path, header):
    header = json.dumps({"__metadata__": header}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


@pytest.mark.parametrize("state", ["", "{", "[]", "1", '{"x": 1}', '{"__tensor__": "a"}', '{"__dict__": [1]}', DEEP])
def test_the_header_of_a_checkpoint(tmp_path, state):
    header = {"format": "stopgrad-checkpoint-1", "crc32": "00000000", "state": state}
    with pytest.raises(CheckpointError, match="is damaged: its header"):
        load_checkpoint(checkpoint_of(tmp_path / "x.ckpt", header))


def test_a_header_without_state(tmp_path):
    header = {"format": "stopgrad-checkpoint-1", "crc32": "00000000"}
    with pytest.raises(CheckpointError, match="is damaged: its header"):
        load_checkpoint(checkpoint_of(tmp_path / "x.ckpt", header))


def test_json_and_toml_that_are_nested_too_deeply(tmp_path):
    run = RunDir(tmp_path)
    for name in ("config.toml", "summary.json", "environment.json", "metrics.jsonl", "encoder.json"):
        (tmp_path / name).write_text(("a = " if name == "config.toml" else "") + DEEP)
    with pytest.raises(ConfigError, match="is not TOML"):
        from_toml(run.config_file)
    with pytest.raises(ValueError, match="nested too deeply"):
        run.read_summary()
    assert run.read_environment() == {}
    assert run.read_metrics() == []
    assert not is_spec(tmp_path / "encoder.json")
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "x.tar", "w") as archive:
        add(archive, "0.png", encoded(0))
        add(archive, "0.json", DEEP.encode())
    with open(tmp_path / "shards" / "x.tar", "rb") as archive:
        assert len(index_tar(archive).offsets) == 1


def test_json_that_is_no_object(tmp_path):
    run = RunDir(tmp_path)
    for name in ("environment.json", "metrics.jsonl"):
        (tmp_path / name).write_text("[1]\n2\n")
    assert run.read_environment() == {}
    assert run.read_metrics() == []


def test_a_query_that_is_no_text():
    path, options = split_query("x.pth?prefix=\udcff%FE")
    assert split_query(with_query(path, options)) == (path, options)


def test_an_array_whose_header_has_no_end(tmp_path):
    made = io.BytesIO()
    np.save(made, np.ones((2, 2), np.float32))
    meta = {"format": "stopgrad-embeddings-1", "dim": 2, "num_images": 2, "class_names": []}
    (tmp_path / "e.npy").write_bytes(made.getvalue().replace(b"}", b" ", 1))
    (tmp_path / "e.npy.meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="no file of embeddings"):
        read_embeddings(tmp_path / "e.npy")


def test_a_list_that_names_a_folder_alone(tmp_path):
    (tmp_path / "x.txt").write_text(".\n")
    with pytest.raises(DataError, match="names no file that exists"):
        open_images(tmp_path / "x.txt")


def test_values_in_other_files(tmp_path):
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(48))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("images", (1, 4, 4, 3), np.uint8, external=[(str(secret), 0, 48)])
    with pytest.raises(DataError, match="keeps the values of 'images' in other files"):
        open_images(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        layout = h5py.VirtualLayout((1, 4, 4, 3), np.uint8)
        layout[:] = h5py.VirtualSource(str(tmp_path / "x.h5"), "images", (1, 4, 4, 3))
        file.create_virtual_dataset("images", layout)
    with pytest.raises(DataError, match="in other files"):
        open_images(tmp_path / "y.h5")


@pytest.mark.parametrize("shortest", [None, 8, 100_000])
def test_a_jpeg_that_says_it_is_huge(shortest):
    data = bytearray(pillow(Image.fromarray(np.zeros((8, 8, 3), np.uint8)), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    with pytest.raises(UnreadableImageError, match="bomb"):
        decode(bytes(data), shortest=shortest)


def test_a_zip_whose_name_begins_with_zero(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", encoded(0))
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes().replace(b"a.png", b"\0.png"))
    with pytest.raises(DataError, match="no whole zip archive"):
        open_images(tmp_path / "x.zip")


def test_a_column_whose_name_is_no_text(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", range(3))
    path.write_bytes(path.read_bytes().replace(b"label", b"lab\x81l"))
    with pytest.raises(DataError, match="cannot be read as parquet"):
        open_images(path)
    assert "no whole parquet file" in index_parquet(str(path)).problem
    with pytest.raises(OSError, match="damaged"):
        unpack(str(path), tmp_path / "unpacked")


def test_an_array_whose_name_is_no_text(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[b"lab\x81l"] = file["images"] = np.zeros((2, 4, 4, 3), np.uint8)
    assert len(open_images(tmp_path / "x.h5").train) == 2


def test_the_folder_of_a_user_who_does_not_exist():
    with pytest.raises(CheckpointError, match="does not exist"):
        check_there("~e=9?image_size=32")
    with pytest.raises(CheckpointError, match="does not exist"):
        check_there("~a\0?image_size=32")
    with pytest.raises(DataError, match="does not exist"):
        read_embeddings("~e=9.npy")
    assert not RunDir("~e=9").is_run
