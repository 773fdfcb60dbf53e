"""Every reader of what may come from a stranger, with valid inputs to damage: for the tests and benchmarks/fuzz.py."""

import contextlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from formats import dicom, npy, pillow, tiff
from PIL import Image
from safetensors.torch import save, save_file
from sharded import add, encoded, write_parquet, write_tar

from stopgrad.data.decode import decode, read_image
from stopgrad.data.pixels import PixelFormat, UnreadableImageError
from stopgrad.errors import DataError, StopgradError

OWN = (StopgradError, UnreadableImageError, OSError)
"""What a reader may raise: the program's own errors, and those of the file system."""


@dataclass(frozen=True)
class Reader:
    """A reader, and what it reads."""

    seeds: Callable[[Path], Sequence[bytes]]
    """Valid inputs, made in a folder."""
    read: Callable[[bytes, Path], None]
    """Read one input, with a folder for files; raises one of `OWN`, or nothing."""
    most_bytes: float = 1.5e9
    """Of memory for one input: an image may have 178 million pixels (Pillow's bound)."""
    native: bool = False
    """Whether a library in C reads the file by itself, for which nothing is promised (docs/security.md)."""


def _values(channels: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 256, (side, side, channels), dtype=np.uint8)


def _images(_: Path) -> list[bytes]:
    rgb, grey = Image.fromarray(_values(3)), Image.fromarray(_values(1)[:, :, 0])
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "SGI", "DDS", "PCX")
    found = [pillow(rgb, kind) for kind in kinds]
    found += [pillow(grey, kind) for kind in ("JPEG", "PNG", "GIF", "TIFF")]
    found += [pillow(rgb, "JPEG", exif=turned), pillow(rgb, "JPEG", progressive=True)]
    found += [pillow(rgb.convert("CMYK"), "JPEG")]
    found += [pillow(rgb.convert("RGBA"), "PNG"), pillow(rgb.convert("P"), "PNG"), pillow(grey.convert("1"), "PNG")]
    found += [pillow(rgb, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    with contextlib.suppress(KeyError, OSError):
        found.append(pillow(rgb, "AVIF"))
    return found


def _deep_images(_: Path) -> list[bytes]:
    deep = np.random.default_rng(0).integers(0, 65536, (12, 12, 2), dtype=np.uint16)
    planes, grey = deep.transpose(2, 0, 1), deep[:, :, 0]
    found = [npy(deep), npy(deep.astype(np.float32)), npy(grey), dicom(grey, window=(2000, 500), slope=2.0)]
    found += [pillow(Image.fromarray(grey), kind) for kind in ("PNG", "TIFF")]
    black = {"photometric": "minisblack"}
    found += [tiff(deep, planarconfig="contig", **black), tiff(planes, **black)]
    found += [tiff(planes.astype(np.float32), compression=kind, **black) for kind in ("zlib", "lzw", "zstd")]
    found += [tiff(deep, planarconfig="contig", tile=(16, 16), bigtiff=True, **black)]
    import imagecodecs

    return [*found, imagecodecs.png_encode(np.repeat(deep[:, :, :1], 3, axis=2))]


def _decode_deep(data: bytes, _: Path) -> None:
    taken, refused = 0, UnreadableImageError()
    for channels, pages in ((1, "first"), (2, "channels"), (3, "first")):
        try:
            decode(data, shortest=8, pixels=PixelFormat(channels, 16, (0.0, 65535.0), pages))
            taken += 1
        except UnreadableImageError as error:
            refused = error
    if not taken:
        raise refused


def _file_reader(name: str, read: Callable[[Path], None]) -> Callable[[bytes, Path], None]:
    def of_bytes(data: bytes, room: Path) -> None:
        # A new file: what is known of one by its name, size and time must not meet the next input.
        path = room / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        read(path)

    return of_bytes


def _open_all(path: Path) -> None:
    """Open a data set and read some of its images."""
    from stopgrad.data.open import open_images

    splits = open_images(path)
    last: Exception | None = None
    for source in (splits.train, splits.test):
        for index in range(min(4, len(source) if source is not None else 0)):
            assert source is not None
            source.name(index), source.label(index)
            try:
                read_image(source, index, 8)
            except UnreadableImageError as error:
                last = error
            except DataError as error:
                # What it makes of a fault in a source's code is to be found here.
                if str(error).startswith("reading ") and error.__cause__ is not None:
                    raise error.__cause__ from None
                raise
    if last is not None:
        raise last


def _parquets(room: Path) -> list[bytes]:
    paths = [write_parquet(room / "a.parquet", range(6)), write_parquet(room / "b.parquet", range(3), names=())]
    return [path.read_bytes() for path in paths]


def _index_parquet(path: Path) -> None:
    from stopgrad.data.shards.parquet import index_parquet, unpack

    entries = index_parquet(str(path))
    if not entries.problem:
        unpack(str(path), path.with_suffix(".unpacked"))


def _tars(room: Path) -> list[bytes]:
    import tarfile

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, folder in enumerate(("cats", "d" * 120, "é")):
            add(archive, f"{folder}/{number}.png", encoded(number, 6))
        add(archive, "cats/9.json", b'{"label": 3}')
        add(archive, "link", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    gnu = io.BytesIO()
    with tarfile.open(fileobj=gnu, mode="w", format=tarfile.GNU_FORMAT) as archive:
        add(archive, f"{'n' * 150}/0.png", encoded(0, 6))
    return [write_tar(room / "a.tar", range(3), side=6).read_bytes(), plain.getvalue(), gnu.getvalue()]


def _index_tar(path: Path) -> None:
    from stopgrad.data.shards.tar import index_tar

    with open(path, "rb") as file:
        entries = index_tar(file)
        for offset, size in zip(entries.offsets, entries.sizes, strict=True):
            file.seek(offset)
            with contextlib.suppress(UnreadableImageError):
                decode(file.read(size), shortest=8)


def _zips(_: Path) -> list[bytes]:
    found = []
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", kind) as archive:
            for number in range(4):
                folder = f"{'train' if number < 3 else 'test'}/{'ab'[number % 2]}"
                archive.writestr(f"{folder}/{number}.png", encoded(number, 6))
        found.append(made.getvalue())
    return found


def _npys(_: Path) -> list[bytes]:
    values = np.stack([_values(3, 6)] * 3)
    return [npy(values), npy(values.astype(np.float32)), npy(values[..., 0]), npy(np.asfortranarray(values))]


def _npzs(_: Path) -> list[bytes]:
    values, found = np.stack([_values(3, 6)] * 4), []
    for write in (np.savez, np.savez_compressed):
        made = io.BytesIO()
        write(made, x_train=values, y_train=np.arange(4) % 2, x_test=values[:2], y_test=[0, 1], class_names=["a", "b"])
        found.append(made.getvalue())
    return found


def _hdf5s(room: Path) -> list[bytes]:
    import h5py

    with h5py.File(room / "a.h5", "w") as file:
        file["images"], file["labels"] = np.stack([_values(3, 6)] * 3), [0, 1, 0]
    return [(room / "a.h5").read_bytes()]


def _lmdbs(room: Path) -> list[bytes]:
    import lmdb

    # A file of its own for each call: a process has a database open once.
    folder = Path(room / "lmdb")
    shutil.rmtree(folder, ignore_errors=True)
    made = lmdb.open(str(folder), map_size=1 << 20)
    with made.begin(write=True) as transaction:
        for number in range(3):
            transaction.put(f"image-{number}".encode(), encoded(number, 6))
            transaction.put(f"label-{number}".encode(), b"ab")
    made.close()
    return [(folder / "data.mdb").read_bytes()]


def _lists(room: Path) -> list[bytes]:
    (room / "0.png").write_bytes(encoded(0, 6))
    return [b"path,label,split\n0.png,a,train\n0.png,b,test\n", b'file\tclass\n0.png\t"a ""b"""\n', b"image\n0.png\n"]


def _tensors() -> dict[str, torch.Tensor]:
    half = torch.zeros(2, dtype=torch.float16)
    return {"conv1.weight": torch.ones(2, 3, 3, 3), "bn1.bias": half, "step": torch.tensor(3)}


def _safetensors(_: Path) -> list[bytes]:
    return [save(_tensors(), metadata={"format": "pt", "arch": "resnet18"})]


def _torch_files(_: Path) -> list[bytes]:
    found = []
    for content in ({"state_dict": _tensors(), "arch": "resnet18", "epoch": 3}, {"turned": torch.ones(2, 3).t()}):
        for newer in (True, False):
            made = io.BytesIO()
            torch.save(content, made, _use_new_zipfile_serialization=newer)
            found.append(made.getvalue())
    return found


def _read_weights(path: Path) -> None:
    from stopgrad.weights.files import read_weights

    read_weights(path)


def _checkpoints(room: Path) -> list[bytes]:
    from stopgrad.artifacts.checkpoint import save_checkpoint

    optimizer = {"state": {0: {"m": torch.ones(2)}}}
    state = {"method": _tensors(), "optimizer": optimizer, "progress": {"step": 3, "lines": [1, None]}}
    save_checkpoint(room / "seed.ckpt", state)
    return [(room / "seed.ckpt").read_bytes()]


def _load_checkpoint(path: Path) -> None:
    from stopgrad.artifacts.checkpoint import load_checkpoint

    load_checkpoint(path)


SPEC = {
    "backbone": "resnet10_16", "stem": "small", "num_features": 128, "image_size": 16, "resize": 16,
    "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "norm": "batch", "pool": "default", "patch_size": 0,
    "format": "stopgrad-encoder-1",
    "pixels": {"channels": 3, "depth": 8, "value_range": None, "pages": "first", "shown": []},
}  # fmt: skip


def _specs(room: Path) -> list[bytes]:
    from stopgrad.nets.backbones import build_backbone

    network = build_backbone("resnet10_16", stem="small", image_size=16)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, room / "encoder.safetensors")
    deep = {**SPEC, "pixels": {**SPEC["pixels"], "depth": 16, "value_range": [0, 4095]}}
    return [json.dumps(spec, indent=2).encode() for spec in (SPEC, deep)]


def _load_spec(path: Path) -> None:
    from stopgrad.encoder.load import load_encoder

    load_encoder(path.with_suffix(".safetensors"))


def _configs(_: Path) -> list[bytes]:
    from stopgrad.config import Config, to_toml
    from stopgrad.recipes import base_config

    return [to_toml(config).encode() for config in (Config(), base_config("photos_small").replace(guide="symmetric"))]


def _read_config(path: Path) -> None:
    from stopgrad.artifacts.run_dir import RunDir

    RunDir(path.parent).read_config()


METRICS = [
    {"step": step, "epoch": step / 4, "images_seen": 64 * step, "seconds": 0.5 * step, "loss": -0.1 * step, "lr": 0.1,
     "views_per_second": 900.0, "knn_top1": 0.5, "feature_std": 0.9, "effective_rank": 9.5, "guide_balance": 0.5}
    for step in (4, 8)
]  # fmt: skip
SUMMARY = {
    "verdict": "learnt", "verdict_words": "Learnt.", "knn_top1": 0.5, "knn": {"trained": 0.5, "untrained": 0.3},
    "knn_protocol": "k-NN", "kept": None, "final": {"knn_top1": 0.5}, "untrained": {"knn_top1": 0.3}, "steps": 8,
    "epochs": 2.0, "images_seen": 512, "num_images": 256, "seconds": 4.0, "views_per_second": 900.0,
    "seconds_by_phase": {"loading": 0.5, "network": 3.5}, "skipped": [{"name": "a.png", "reason": "empty file"}],
}  # fmt: skip
EVALUATION = {"kind": "knn", "score": 0.5, "top1": 0.5, "settings": {"k": 20}, "num_queries": 64, "data": "photos"}
_OF_A_RUN = {
    "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in METRICS),
    "summary.json": json.dumps(SUMMARY, indent=2),
    "evaluations/knn.json": json.dumps(EVALUATION), "environment.json": json.dumps({"device": "cpu", "command": ["a"]}),
}  # fmt: skip


def _run_files(_: Path) -> list[bytes]:
    # The first line says which of a run's files it is.
    return [f"{name}\n{text}".encode() for name, text in _OF_A_RUN.items()]


def _look_at_run(data: bytes, room: Path) -> None:
    """A run of which one file is damaged: its page without pictures, and a comparison with itself."""
    from stopgrad.artifacts.run_dir import RunDir
    from stopgrad.config import Config
    from stopgrad.report.compare import compare
    from stopgrad.report.run import page_values, write_progress_page

    runs = [RunDir(room / name) for name in ("a", "b")]
    for run in runs:
        if not run.is_run:
            run.make()
            run.evaluations_dir.mkdir()
            run.write_config(Config())
        for name, text in _OF_A_RUN.items():
            (run.path / name).write_text(text)
    name, _, content = data.partition(b"\n")
    chosen = name.decode("latin-1")
    (runs[0].path / (chosen if chosen in _OF_A_RUN else "metrics.jsonl")).write_bytes(content)
    page_values(runs[0], Config())
    write_progress_page(runs[0], Config(), {})
    compare([run.path for run in runs], out=room / "page.html", overwrite=True)


def _hub_configs(_: Path) -> list[bytes]:
    about = {"input_size": [3, 64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "crop_pct": 0.9}
    config = {"architecture": "resnet18", "num_classes": 10, "num_features": 512, "pretrained_cfg": about}
    more = {**config, "model_args": {"num_classes": 0, "global_pool": "avg"}, "global_pool": "avg"}
    return [json.dumps(content, indent=2).encode() for content in (config, more)]


def _read_hub_config(path: Path) -> None:
    from stopgrad.weights.conventions import described

    described(path.with_name("model.safetensors"))


def _shard_lists(_: Path) -> list[bytes]:
    return [json.dumps({"shardlist": [{"url": f"train-{number}.tar", "nsamples": 4} for number in range(3)]}).encode()]


def _read_shard_list(data: bytes, _: Path) -> None:
    from stopgrad.data.shards.place import read_list

    read_list(data, "https://example.org/set/index.json?x=1")


def _queries(_: Path) -> list[bytes]:
    return [
        b"simsiam.pth?image_size=96&backbone=resnet50&mean=0.5,0.5,0.5&std=0.2&partial=true",
        b"timm:resnet10t?pretrained=false",
        b"a.pth?prefix=module.encoder_q&stem=small",
        b"package:tf_efficientnet_lite0",
        b"hub:a/b",
    ]


def _read_query(data: bytes, room: Path) -> None:
    from stopgrad.weights.options import add_options, check_there, split_query, with_query

    text = data.decode("utf-8", "surrogateescape")
    path, options = split_query(text)
    with_query(path, options), add_options(path, options), check_there(text)


def _embeddings(room: Path, suffix: str) -> list[bytes]:
    from stopgrad.embeddings.formats import FORMAT, Rows, write_rows

    out = room / f"e{suffix}"
    metadata = {"format": FORMAT, "dim": 4, "num_images": 3, "class_names": ["a", "b"]}
    vectors = np.ones((3, 4), np.float32)
    write_rows(out, Rows(vectors, lambda row: (f"{row}.png", "train", row % 2, "ab"[row % 2]), False, metadata))
    return [out.read_bytes()]


def _read_embeddings(path: Path) -> None:
    from stopgrad.embeddings.read import read_embeddings

    read_embeddings(path)


def _listings(room: Path) -> list[bytes]:
    from stopgrad.data.shared import listing

    root = room / "listed"
    for folder in ("a", "b"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "0.png").write_bytes(b"")
    listing._write(room / "seed.npz", *listing._found(str(root)))
    return [(room / "seed.npz").read_bytes()]


def _read_listing(path: Path) -> None:
    from stopgrad.data.shared import listing

    found = listing._read(path, str(path.parent / "listed"))
    if found is not None:
        [found[index] for index in range(min(4, len(found)))]


def _decode_rgb(data: bytes, _: Path) -> None:
    decode(data, shortest=8)


READERS = {
    "images": Reader(_images, _decode_rgb),
    # Of other formats than Pillow's, 4 GB, and as float32 while it is converted.
    "deep-images": Reader(_deep_images, _decode_deep, most_bytes=16e9),
    "parquet": Reader(_parquets, _file_reader("set.parquet", _open_all)),
    "parquet-shard": Reader(_parquets, _file_reader("shard.parquet", _index_parquet)),
    "tar": Reader(_tars, _file_reader("set.tar", _index_tar)),
    "zip": Reader(_zips, _file_reader("set.zip", _open_all)),
    "npy": Reader(_npys, _file_reader("set.npy", _open_all)),
    "npz": Reader(_npzs, _file_reader("set.npz", _open_all)),
    "list": Reader(_lists, _file_reader("set.csv", _open_all)),
    "safetensors": Reader(_safetensors, _file_reader("w.safetensors", _read_weights)),
    "torch": Reader(_torch_files, _file_reader("w.pth", _read_weights)),
    "checkpoint": Reader(_checkpoints, _file_reader("step-00000001.ckpt", _load_checkpoint)),
    "encoder-json": Reader(_specs, _file_reader("encoder.json", _load_spec)),
    "hub-config": Reader(_hub_configs, _file_reader("config.json", _read_hub_config)),
    "shard-list": Reader(_shard_lists, _read_shard_list),
    "run": Reader(_run_files, _look_at_run),
    "config": Reader(_configs, _file_reader("config.toml", _read_config)),
    "query": Reader(_queries, _read_query),
    "embeddings-parquet": Reader(partial(_embeddings, suffix=".parquet"), _file_reader("e.parquet", _read_embeddings)),
    "embeddings-npy": Reader(partial(_embeddings, suffix=".npy"), _file_reader("e.npy", _read_embeddings)),
    "embeddings-csv": Reader(partial(_embeddings, suffix=".csv"), _file_reader("e.csv", _read_embeddings)),
    "listing": Reader(_listings, _file_reader("kept.npz", _read_listing)),
    "hdf5": Reader(_hdf5s, _file_reader("set.h5", _open_all), native=True),
    "lmdb": Reader(_lmdbs, _file_reader("set.lmdb", _open_all), native=True),
}
