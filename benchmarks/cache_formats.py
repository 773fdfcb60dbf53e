"""Where decoded images can be kept: time to write, to open and to read at random, and bytes on disk.

    python benchmarks/cache_formats.py CIFAR10/train.parquet FLOWERS12 --out benchmarks/results/cache_formats.json

Needs lmdb and datasets. Two sets: 20,000 images of one size from the first data set, and 1,000 of many sizes with a
shorter side of 292 pixels, cut from photos of the second. Every format keeps the same bytes and is read in the same
batches of 256 in random order, each image copied into memory of the caller's, from files that the system has in memory;
images of one size come as one array from our entry and from np.memmap, as a list from the others. Formats take turns,
and ratios are to our entry in the same round. Writing and opening are by the clock, reading in processor time. Opening
ends when the first batch can be asked for, our entry's checks included.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import datasets
import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import rounds
import torch
from PIL import Image

from stopgrad.cache.build import Chunk, EntryWriter
from stopgrad.cache.entry import open_entry
from stopgrad.data.decode import decode
from stopgrad.data.open import open_images
from stopgrad.data.pixels import RGB8

KEY = "0" * 24
BATCH = 256
SHORTEST = 292
NUM_SMALL, NUM_PHOTOS = 20_000, 1_000
CHUNK = 256


class OurEntry:
    """Checksums, and fsync before it counts as complete."""

    def write(self, images, folder):
        layout = "chw" if len({image.shape for image in images}) == 1 else "hwc"
        with EntryWriter(folder / KEY, KEY, len(images), layout) as writer:
            for start in range(0, len(images), CHUNK):
                some = images[start : start + CHUNK]
                turned = [image.transpose(2, 0, 1) if layout == "chw" else image for image in some]
                pixels = b"".join(image.tobytes() for image in turned)
                writer.add(Chunk(start + len(some), [image.shape[:2] for image in some], [], pixels))
            writer.finish({})

    def open(self, folder):
        entry = open_entry(folder / KEY, KEY, RGB8)
        self.entry, self.stacked = entry, entry.stacked
        self.images = None if self.stacked is not None else entry.images(range(len(entry.shapes)))

    def read(self, indices):
        if self.stacked is not None:
            return self.stacked[torch.from_numpy(indices)]
        return [self.images[i].copy() for i in indices.tolist()]


class OneFile:
    """One file of pixels and one of shapes, mapped by NumPy; nothing else."""

    def write(self, images, folder):
        with open(folder / "pixels", "wb") as file:
            for image in images:
                file.write(image.tobytes())
        np.save(folder / "shapes.npy", np.array([image.shape for image in images]))

    def open(self, folder):
        self.shapes = np.load(folder / "shapes.npy")
        self.starts = np.concatenate([[0], np.cumsum(self.shapes.prod(axis=1))])
        self.pixels = np.memmap(folder / "pixels", dtype=np.uint8, mode="r")
        if (self.shapes == self.shapes[0]).all():
            self.pixels = self.pixels.reshape(len(self.shapes), *self.shapes[0])
        self.even = self.pixels.ndim > 1

    def read(self, indices):
        if self.even:
            return self.pixels[indices]
        return [
            np.array(self.pixels[self.starts[i] : self.starts[i + 1]]).reshape(self.shapes[i]) for i in indices.tolist()
        ]


def table_of(images):
    shapes = np.array([image.shape for image in images], dtype=np.int32)
    pixels = pa.array([image.tobytes() for image in images], pa.large_binary())
    return pa.table({"pixels": pixels, "height": shapes[:, 0], "width": shapes[:, 1]})


class ArrowFile:
    """Arrow's file format, mapped."""

    def write(self, images, folder):
        table = table_of(images)
        with pa.OSFile(str(folder / "images.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=CHUNK)

    def open(self, folder):
        self.take(pa.ipc.open_file(pa.memory_map(str(folder / "images.arrow"))).read_all())

    def take(self, table):
        self.chunks = table["pixels"].chunks
        lengths = [len(chunk) for chunk in self.chunks]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.shapes = np.stack([table["height"].to_numpy(), table["width"].to_numpy()], axis=1)

    def read(self, indices):
        chunks = np.searchsorted(self.starts, indices, side="right") - 1
        return [
            np.frombuffer(self.chunks[c][i - self.starts[c]].as_buffer(), np.uint8).reshape(*self.shapes[i], 3).copy()
            for i, c in zip(indices.tolist(), chunks.tolist(), strict=True)
        ]


class ParquetFile(ArrowFile):
    """Parquet without compression, read into memory whole: it has no access to single rows."""

    def write(self, images, folder):
        pq.write_table(table_of(images), folder / "images.parquet", compression="none", row_group_size=1024)

    def open(self, folder):
        self.take(pq.read_table(folder / "images.parquet"))


class Lmdb:
    """LMDB, a key an image; height and width before the pixels."""

    def write(self, images, folder):
        size = sum(image.nbytes for image in images)
        with lmdb.open(str(folder / "images.lmdb"), map_size=2 * size + 2**26) as database:
            for start in range(0, len(images), CHUNK):
                with database.begin(write=True) as transaction:
                    for i, image in enumerate(images[start : start + CHUNK], start):
                        shape = np.array(image.shape[:2], dtype=np.uint32).tobytes()
                        transaction.put(i.to_bytes(8, "big"), shape + image.tobytes(), append=True)

    def open(self, folder):
        self.database = lmdb.open(str(folder / "images.lmdb"), readonly=True, lock=False)

    def read(self, indices):
        with self.database.begin(buffers=True) as transaction:
            found = []
            for i in indices.tolist():
                value = transaction.get(i.to_bytes(8, "big"))
                height, width = np.frombuffer(value, np.uint32, 2)
                found.append(np.frombuffer(value, np.uint8, offset=8).reshape(height, width, 3).copy())
            return found


class HuggingFace:
    """The library `datasets`, a row an image: pixels, height, width."""

    def write(self, images, folder):
        datasets.Dataset(table_of(images)).save_to_disk(str(folder / "images"))

    def open(self, folder):
        self.rows = datasets.load_from_disk(str(folder / "images"))

    def read(self, indices):
        some = self.rows[indices.tolist()]
        return [
            np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
            for pixels, height, width in zip(some["pixels"], some["height"], some["width"], strict=True)
        ]


FORMATS = {
    "our entry": OurEntry,
    "one file, np.memmap": OneFile,
    "Arrow file, mapped": ArrowFile,
    "parquet, read whole": ParquetFile,
    "LMDB": Lmdb,
    "datasets": HuggingFace,
}


def small_images(path):
    source = open_images(str(path)).train
    return [decode(source.read(i)) for i in range(NUM_SMALL)]


def photos(path):
    """Of sizes as photos have them, 3 : 2 to 2 : 3, cut from photos enlarged to 292 pixels and more."""
    source = open_images(str(path)).train
    rng = np.random.default_rng(0)
    made = []
    for i in range(NUM_PHOTOS):
        longer = int(rng.integers(SHORTEST, 3 * SHORTEST // 2))
        large = Image.fromarray(decode(source.read(i % len(source)))).resize((longer, longer))
        size = (longer, SHORTEST) if i % 2 else (SHORTEST, longer)
        made.append(np.asarray(large.crop((0, 0, *size))))
    return made


def measured(kind, images, seconds, place):
    """One round of a format: written, opened, and read until the time is over."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        began = time.perf_counter()
        kind().write(images, folder)
        written = time.perf_counter() - began
        size = sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
        began = time.perf_counter()
        cache = kind()
        cache.open(folder)
        opened = time.perf_counter() - began
        check(cache, images)
        order = np.random.default_rng(0).permutation(len(images))
        batches = [order[start : start + BATCH] for start in range(0, len(images) - BATCH + 1, BATCH)]
        for batch in batches:
            cache.read(batch)
        began, done = time.process_time(), 0
        while time.process_time() - began < seconds:
            cache.read(batches[done % len(batches)])
            done += 1
        rate = BATCH * done / (time.process_time() - began)
        del cache
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return {"write": written, "open": opened, "read": rate, "bytes": size}


def check(cache, images):
    """What is read is what was written."""
    for i, found in zip((0, len(images) - 1), cache.read(np.array([0, len(images) - 1])), strict=True):
        found = np.asarray(found)
        if found.shape != images[i].shape:
            found = found.transpose(1, 2, 0)
        assert np.array_equal(found, images[i])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path, help="images of one size, about 32 pixels")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of reading, each format and round")
    parser.add_argument(
        "--place", type=Path, help="folder on the disk to measure; without it, the system's temporary one"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    found = []
    for name, make, path in (("32 x 32", small_images, arguments.small), ("292 px", photos, arguments.photos)):
        images = make(path)
        arms = {
            what: lambda kind=kind, images=images: measured(kind, images, arguments.seconds, arguments.place)
            for what, kind in FORMATS.items()
        }
        taken = rounds.in_turn(arms, arguments.rounds, told=name)
        pixels = sum(image.nbytes for image in images)
        entry = {"images": name, "count": len(images), "sizes": len({i.shape for i in images}), "pixel_bytes": pixels}
        reads = rounds.beside({what: [each["read"] for each in own] for what, own in taken.items()}, "our entry")
        entry["formats"] = {
            what: {
                "write_seconds": rounds.spread([each["write"] for each in own]),
                "open_ms": rounds.spread([1000 * each["open"] for each in own]),
                "read_images_a_second": reads[what]["rate"],
                "read_ratio": reads[what]["ratio"],
                "bytes_over_pixels": round(own[0]["bytes"] / pixels, 4),
            }
            for what, own in taken.items()
        }
        found.append(entry)
    rounds.write(arguments.out, {**rounds.machine(("pyarrow", "lmdb", "datasets")), "batch": BATCH, "sets": found})


if __name__ == "__main__":
    main()
