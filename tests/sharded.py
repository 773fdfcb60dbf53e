"""Shards as files: small images in tar archives and parquet files."""

import contextlib
import io
import json
import tarfile

import numpy as np
from PIL import Image


def encoded(number, side=16):
    """A PNG of which the first pixel says the number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels[0, 0] = number // 256, number % 256, 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def number_in(data):
    """The number that `encoded` wrote."""
    red, green, _ = np.asarray(Image.open(io.BytesIO(data)))[0, 0].tolist()
    return 256 * red + green


def add(archive, name, content=b"", **more):
    """A member of an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in more.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def write_tar(path, numbers, *, label=lambda number: number % 2, side=16):
    """A WebDataset shard of the images with these numbers; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            add(archive, f"{number:06}.png", encoded(number, side))
            if label is not None:
                add(archive, f"{number:06}.cls", str(label(number)).encode())
    return path


def write_tars(folder, counts, name="train-{:03}.tar", **more):
    """Shards of so many images each, numbered throughout; their paths."""
    starts = np.cumsum([0, *counts]).tolist()
    return [
        write_tar(folder / name.format(i), range(starts[i], starts[i + 1]), **more) for i in range(len(counts))
    ]  # fmt: skip


def bytes_of_copies(root):
    """What the copies in a folder take at this moment."""
    total = 0
    for file in root.glob("*.shard"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def write_parquet(path, numbers, *, names=("even", "odd"), row_group_size=5, side=16):
    """A parquet file in the Hugging Face layout; its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": encoded(number, side), "path": f"{number}.png"} for number in numbers]
    table = pa.table({"image": images, "label": [number % 2 for number in numbers]})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path
