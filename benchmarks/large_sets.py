"""Memory and starting times of large sets, in shards and as files, by their number of images.

    python benchmarks/large_sets.py 10000 100000 1000000 --out benchmarks/results/large_sets.json

Makes its own images, 16 x 16 JPEGs in shards or folders of a thousand, in a temporary folder (a million: 1.6 GB as tar
archives, 4 GB as files, and as parquet files 0.7 GB with copies of as much), and removes them. Each figure is of a
process of its own: how long the set takes to open, for the first time and the second, how long its key takes, by which
a change is noticed, and the first batch; and the resident memory after 200 batches of 64 images, of which `anonymous`
leaves out mapped files.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

SHARD, BATCHES, BATCH = 1000, 200, 64


def jpegs(num=64):
    from PIL import Image

    rng = np.random.default_rng(0)
    found = []
    for _ in range(num):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "JPEG", quality=60)
        found.append(file.getvalue())
    return found


def write_tars(folder, num):
    images = jpegs()
    for first in range(0, num, SHARD):
        with tarfile.open(folder / f"train-{first // SHARD:06}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(first, first + SHARD):
                member = tarfile.TarInfo(f"class{number % 10}/{number:09}.jpg")
                content = images[number % len(images)]
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_parquet(folder, num):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = jpegs()
    for first in range(0, num, SHARD):
        rows = range(first, first + SHARD)
        content = pa.array([{"bytes": images[number % len(images)]} for number in rows])
        table = pa.table({"image": content, "label": [number % 10 for number in rows]})
        pq.write_table(table, folder / f"train-{first // SHARD:06}.parquet", row_group_size=100, use_dictionary=False)


def write_files(folder, num):
    images = jpegs()
    for first in range(0, num, SHARD):
        (folder / f"{first // SHARD:06}").mkdir()
        for number in range(first, first + SHARD):
            (folder / f"{first // SHARD:06}" / f"{number:09}.jpg").write_bytes(images[number % len(images)])


def memory():
    """Resident memory of this process in MB, and what of it is no mapped file."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1000 for name, key in (("rss", "VmRSS"), ("anonymous", "RssAnon"))}


def measure(path):
    import torch

    from stopgrad.cache.store import load_images
    from stopgrad.config import Config
    from stopgrad.data.open import open_images
    from stopgrad.distributed.rank import Rank
    from stopgrad.loader.loader import Loader

    torch.set_num_threads(1)
    config = Config().replace(path=path, image_size=16, batch_size=BATCH, workers=2, shuffle_buffer=10_000)
    before = memory()
    began = time.perf_counter()
    source = open_images(path, config.data).train
    opened = time.perf_counter()
    source.cache_key()
    keyed = time.perf_counter()
    loader = Loader(load_images(source, shortest=16, memory_gb=0), config, Rank())
    batches = loader.batches(0, BATCHES)
    next(batches)
    first = time.perf_counter()
    num_images = sum(len(batch) for batch in batches)
    ended = time.perf_counter()
    assert not loader.store.skipped
    after = memory()
    return {
        "images": len(source),
        "open_seconds": round(opened - began, 2), "key_seconds": round(keyed - opened, 2),
        "first_batch_seconds": round(first - keyed, 2),
        "images_a_second": round(num_images / (ended - first)),
        **{f"{name}_mb": round(after[name]) for name in after},
        **{f"{name}_grew_mb": round(after[name] - before[name]) for name in after},
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    rows = []
    for num in given.num:
        for kind, write in (("tar", write_tars), ("parquet", write_parquet), ("folder", write_files)):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "set").mkdir()
                write(Path(folder) / "set", num)
                environment = {**os.environ, "STOPGRAD_CACHE": f"{folder}/cache"}
                command = [sys.executable, __file__, "--measure", f"{folder}/set"]
                for start in ("first", "second"):
                    out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
                    print(kind, start, out.strip(), flush=True)
                    rows.append({"kind": kind, "start": start, **json.loads(out)})
    if given.out:
        import torch

        from stopgrad.artifacts.environment import environment

        about = environment(torch.device("cpu"), "fp32")
        given.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
