"""The images a benchmark runs on: the user's, or made-up ones."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from stopgrad.data.open import open_images
from stopgrad.data.shards.order import draw_from
from stopgrad.data.sources import ImageSource, Subset

NUM_SMALL, NUM_PHOTOS = 4096, 128


def sample(path: str, most: int) -> ImageSource:
    """The training images of a data set, or `most` of them, drawn once and for all."""
    source = open_images(path).train
    if len(source) <= most:
        return source
    drawn = draw_from(source, most, np.random.Generator(np.random.PCG64(0)))
    return Subset(source, np.sort(drawn).tolist())


def write_small_images(folder: Path, num: int = NUM_SMALL) -> Path:
    """A parquet file of made-up JPEGs of 32 x 32 pixels: smooth colours and a little noise."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.Generator(np.random.PCG64(0))
    rows = [{"bytes": _jpeg(rng, (32, 32), quality=75), "path": None} for _ in range(num)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    file = folder / "train.parquet"
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), file)
    return file


def write_photos(folder: Path, num: int = NUM_PHOTOS) -> Path:
    """A folder of made-up JPEG photos of 400 x 300 pixels."""
    rng = np.random.Generator(np.random.PCG64(1))
    folder = folder / "photos"
    folder.mkdir()
    for index in range(num):
        (folder / f"{index:04}.jpg").write_bytes(_jpeg(rng, (400, 300), quality=90))
    return folder


def _jpeg(rng: np.random.Generator, size: tuple[int, int], quality: int) -> bytes:
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse) + rng.normal(0, 8, (size[1], size[0], 3))
    encoded = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()
