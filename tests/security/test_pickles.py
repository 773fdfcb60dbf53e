"""A pickle that would run code, in every place a file is read: refused or skipped, and never run."""

import io
import json
import os
import pickle
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fuzz_readers import SPEC
from safetensors.torch import save_file
from sharded import add, encoded, write_tar

from stopgrad.artifacts.checkpoint import load_checkpoint
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cache.entry import DamagedEntryError, _read_index, open_entry
from stopgrad.config import Config
from stopgrad.data.decode import read_image
from stopgrad.data.open import open_images
from stopgrad.data.pixels import RGB8, UnreadableImageError
from stopgrad.data.shards.access import local_shard
from stopgrad.data.shards.index import IMAGES, ShardIndex, ensure_index, index_folder
from stopgrad.data.shards.tar import index_tar
from stopgrad.data.shared import listing
from stopgrad.embeddings.formats import FORMAT, META_KEY, Rows, write_rows
from stopgrad.embeddings.partial import Partial
from stopgrad.embeddings.read import read_embeddings
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.report.run import page_values
from stopgrad.studies.cells import CellStore

KINDS = ("text", "binary", "newest", "torch", "older torch")


class Live:
    """Unpickling it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    """What a pickle that is run would make; none is, by the end."""
    place = tmp_path / "it ran"
    yield place
    assert not place.exists()


def payload(marker, kind="binary"):
    if kind in ("torch", "older torch"):
        made = io.BytesIO()
        torch.save({"state_dict": {"a": torch.ones(1)}, "x": Live(marker)}, made,
                   _use_new_zipfile_serialization=kind == "torch")  # fmt: skip
        return made.getvalue()
    return pickle.dumps(Live(marker), {"text": 0, "binary": 2, "newest": 5}[kind])


def objects(marker, num=2):
    """An array file of Python objects."""
    made = io.BytesIO()
    np.save(made, np.array([Live(marker)] * num, dtype=object), allow_pickle=True)
    return made.getvalue()


def test_the_pickles_are_live(tmp_path):
    for number, kind in enumerate(KINDS[:3]):
        pickle.loads(payload(tmp_path / str(number), kind))
        assert (tmp_path / str(number)).is_dir()
    np.load(io.BytesIO(objects(tmp_path / "array", 1)), allow_pickle=True)
    torch.load(io.BytesIO(payload(tmp_path / "torch", "torch")), weights_only=False)
    assert (tmp_path / "array").is_dir()
    assert (tmp_path / "torch").is_dir()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.ckpt", "w.bin", "w.safetensors", "encoder.safetensors"])
def test_weights(tmp_path, marker, name, kind):
    (tmp_path / name).write_bytes(payload(marker, kind))
    (tmp_path / "encoder.json").write_text(json.dumps(SPEC))
    with pytest.raises(CheckpointError):
        load_encoder(tmp_path / name)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"])
def test_a_folder_of_a_hub(tmp_path, marker, name):
    (tmp_path / name).write_bytes(payload(marker, "torch"))
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(CheckpointError):
        load_encoder(tmp_path)


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"])
def test_a_config_that_names_another_file_of_weights(tmp_path, marker, argument, monkeypatch):
    import timm

    evil = tmp_path / "evil.pth"
    evil.write_bytes(payload(marker, "torch"))
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "pytorch_model.bin")
    value = str(evil) if argument == "checkpoint_path" else {"file": str(evil)}
    config = {"architecture": "resnet18", "model_args": {argument: value}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # Some releases of timm would unpickle it: it is not even asked.
    monkeypatch.setattr(timm.models._builder, "load_pretrained", lambda *a, **k: marker.mkdir(), raising=False)
    monkeypatch.setattr(timm.models._factory, "load_checkpoint", lambda *a, **k: marker.mkdir())
    with pytest.raises(CheckpointError, match="which is another network"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(tmp_path, marker, kind):
    run = RunDir(tmp_path / "run")
    run.create()
    bad = payload(marker, kind)
    run.config_file.write_bytes(bad)
    with pytest.raises(ConfigError, match="is not TOML"):
        run.read_config()
    run.write_config(Config())
    for file in (run.checkpoint_dir / "step-00000007.ckpt", run.best_file, run.summary_file, run.environment_file,
                 run.metrics_file, run.evaluations_dir / "knn.json"):  # fmt: skip
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bad)
    state, problems = run.newest_checkpoint()
    assert state is None
    assert "step-00000007.ckpt" in problems[0]
    with pytest.raises(CheckpointError):
        load_checkpoint(run.best_file)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load_encoder(run.path)
    assert run.read_metrics() == []
    assert run.read_environment() == {}
    assert run.read_evaluations() == {}
    assert page_values(run, Config())["curves"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_description_of_an_encoder(tmp_path, marker, kind):
    save_file({"a": torch.ones(1)}, tmp_path / "encoder.safetensors")
    (tmp_path / "encoder.json").write_bytes(payload(marker, kind))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_encoder(tmp_path / "encoder.safetensors")


def embeddings(path):
    metadata = {"format": FORMAT, "dim": 2, "num_images": 2, "class_names": []}
    write_rows(path, Rows(np.ones((2, 2), np.float32), lambda row: (str(row), None, None, None), False, metadata))
    return path


def test_embeddings(tmp_path, marker):
    bad = payload(marker)
    for name, content in (("e.npy", objects(marker)), ("e.npy", bad), ("e.npy.meta.json", bad), ("e.names.csv", bad),
                          ("e.npz", objects(marker))):  # fmt: skip
        path = embeddings(tmp_path / "e.npy")
        assert len(read_embeddings(path)) == 2
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            read_embeddings(tmp_path / name if name == "e.npz" else path)


def live_extension(marker):
    """A field that pyarrow would unpickle, before version 14.0.1 (CVE-2023-47248)."""
    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload(marker)}
    return pa.field("image", pa.binary(), metadata=metadata)


def test_parquet(tmp_path, marker):
    table = pq.read_table(embeddings(tmp_path / "e.parquet"))
    pq.write_table(table.replace_schema_metadata({META_KEY: payload(marker)}), tmp_path / "e.parquet")
    with pytest.raises(DataError):
        read_embeddings(tmp_path / "e.parquet")
    schema = pa.schema([live_extension(marker)], {b"huggingface": payload(marker)})
    rows = pa.array([payload(marker), encoded(0)])
    pq.write_table(pa.Table.from_arrays([rows], schema=schema), tmp_path / "x.parquet")
    assert is_unreadable(open_images(tmp_path / "x.parquet").train) == [True, False]


def is_unreadable(source):
    found = []
    for index in range(len(source)):
        try:
            read_image(source, index, 8)
        except UnreadableImageError:
            found.append(True)
        else:
            found.append(False)
    return found


NAMES = [f"a{suffix}" for suffix in (".png", ".jpg", ".tif", ".npy", ".dcm", ".webp")]


@pytest.mark.parametrize("kind", [*KINDS, "objects"])
def test_image_files(tmp_path, marker, kind):
    bad = objects(marker) if kind == "objects" else payload(marker, kind)
    folder = tmp_path / "photos"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in NAMES:
            (folder / name).write_bytes(bad)
            archive.writestr(name, bad)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in NAMES:
            add(archive, name, bad)
    for path in (folder, tmp_path / "x.zip", tmp_path / "x.tar"):
        assert is_unreadable(open_images(path).train) == [True] * len(NAMES)


@pytest.mark.parametrize(
    "name", [f"x.{s}" for s in ["npy", "npz", "h5", "zip", "parquet", "csv", "txt", "lmdb", "tar"]]
)
@pytest.mark.parametrize("kind", [*KINDS, "objects"])
def test_files_of_images(tmp_path, marker, name, kind):
    (tmp_path / name).write_bytes(objects(marker) if kind == "objects" else payload(marker, kind))
    with pytest.raises(DataError):
        open_images(tmp_path / name)


def test_arrays_of_objects(tmp_path, marker):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    bad = np.array([Live(marker)] * 2, dtype=object)
    np.savez(tmp_path / "labels.npz", images=images, labels=bad, class_names=bad)
    source = open_images(tmp_path / "labels.npz").train
    assert is_unreadable(source) == [False, False]
    assert source.label(0) == -1
    np.savez(tmp_path / "images.npz", images=np.array([Live(marker)] * 8, dtype=object).reshape(2, 2, 2))
    with pytest.raises(DataError, match="not unpickled"):
        open_images(tmp_path / "images.npz")


def test_hdf5_and_lmdb(tmp_path, marker):
    h5py, lmdb = pytest.importorskip("h5py"), pytest.importorskip("lmdb")
    bad = np.frombuffer(payload(marker), np.uint8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        rows = file.create_dataset("images", (2,), h5py.vlen_dtype(np.uint8))
        rows[0], rows[1] = bad, np.frombuffer(encoded(0), np.uint8)
    assert is_unreadable(open_images(tmp_path / "x.h5").train) == [True, False]
    database = lmdb.open(str(tmp_path / "x"), map_size=1 << 20)
    with database.begin(write=True) as transaction:
        transaction.put(b"image-0", payload(marker))
        transaction.put(b"image-1", encoded(0))
        transaction.put(b"label-0", payload(marker))
    database.close()
    assert is_unreadable(open_images(tmp_path / "x").train) == [True, False]


def test_shards_and_what_is_kept_of_them(tmp_path, marker):
    path = write_tar(tmp_path / "a.tar", range(3))
    shard = local_shard(str(path))

    def make(_):
        with open(path, "rb") as archive:
            return index_tar(archive)

    ensure_index(tmp_path, shard, make)
    folder = index_folder(tmp_path, shard)
    ShardIndex(folder, {})
    for bad in (objects(marker), payload(marker)):
        (folder / IMAGES).write_bytes(bad + bytes(200))
        with pytest.raises(OSError, match="is damaged"):
            ShardIndex(folder, {})
    (folder / "about.json").write_bytes(payload(marker))
    assert ensure_index(tmp_path, shard, make).num_images == 3
    assert len(ShardIndex(folder, {}).images) == 3


def test_labels_in_an_archive(tmp_path, marker):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for number, name in enumerate(("json", "cls")):
            add(archive, f"{number}.png", encoded(number))
            add(archive, f"{number}.{name}", payload(marker, "text"))
    with open(tmp_path / "x.tar", "rb") as archive:
        assert len(index_tar(archive).offsets) == 2


def test_the_cache(tmp_path, marker):
    file = tmp_path / "kept.npz"
    for content in (objects(marker), payload(marker)):
        file.write_bytes(content)
        assert listing._read(file, str(tmp_path)) is None
    bad = np.array([Live(marker)], dtype=object)
    np.savez(file, folders=bad, folder_ends=bad, states=bad, folder_of=bad, names=bad, ends=bad)
    assert listing._read(file, str(tmp_path)) is None
    entry = tmp_path / "entry"
    entry.mkdir()
    (entry / "used").touch()
    (entry / "meta.json").write_bytes(payload(marker))
    with pytest.raises(DamagedEntryError):
        open_entry(entry, "key", RGB8)
    (entry / "index.npy").write_bytes(objects(marker))
    with pytest.raises(DamagedEntryError):
        _read_index(entry / "index.npy", {"num_images": 2, "index_crc32": 0})


def test_embeddings_that_are_unfinished(tmp_path, marker):
    (tmp_path / "e.npy.partial.json").write_bytes(payload(marker))
    partial = Partial(tmp_path / "e.npy", 2, {})
    assert partial.differs == ["its journal is damaged"]
    partial.close()


def test_cells_of_a_study(tmp_path, marker):
    store = CellStore(tmp_path)
    store.cell_dir.mkdir()
    (store.cell_dir / "0123.json").write_bytes(payload(marker, "text"))
    assert list(store.kept()) == []
    store.file_of = lambda cell: store.cell_dir / "0123.json"
    assert store.read(SimpleNamespace()) is None


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_folders_of_datasets(tmp_path, marker, name):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"label": [1]}).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / name).write_bytes(payload(marker))
    with pytest.raises(DataError):
        open_images(f"hf:{tmp_path / 'saved'}")


def test_torchvision(tmp_path, marker):
    pytest.importorskip("torchvision")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / name).write_bytes(payload(marker))
    with pytest.raises(DataError, match="not found or corrupted"):
        open_images(f"torchvision:CIFAR10:{tmp_path}")
    for name in ("LSUN", "LSUNClass"):
        with pytest.raises(ConfigError, match="could run any code"):
            open_images(f"torchvision:{name}:{tmp_path}")
