"""From files to augmented views on the CPU, beside other libraries that read the same images: images a second.

    python benchmarks/input.py CIFAR10/train.parquet FLOWERS12 --out benchmarks/results/input.json

Needs torchvision, webdataset, datasets and stopgrad[jpeg,remote]. At 32 pixels 10,000 images of the first set, at 224
pixels the photos of the second, each in batches of 128 images with two views: crop, mirroring, colour jitter, grey, at
224 pixels blur, and normalisation. The same bytes lie in a folder, in a parquet file and in eight tar files, which a
server of this machine also sends. The others run a DataLoader with a worker for each core and torchvision's transforms
(v2, on uint8 tensors). Arms take turns; ratios are to the DataLoader on the folder in the same round. By the clock,
after a warm-up, from files that the system has in memory. An arm that cannot open its images is left out, and the
result says why.

Beside other programs on the same cores, OMP_WAIT_POLICY=PASSIVE keeps torch's threads from spinning while they wait for
each other, which can make ours twenty times as slow.
"""

import argparse
import functools
import io
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rounds
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from stopgrad.bench.clock import Window
from stopgrad.cache.cache import ImageCache
from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.distributed.rank import Rank
from stopgrad.errors import StopgradError
from stopgrad.hardware import usable_cores
from stopgrad.loader.loader import Loader
from stopgrad.loader.preprocess import shortest_of

NUM_SMALL, NUM_SHARDS = 10_000, 8
BATCH, VIEWS = 128, 2
ENDLESS = 10**7


def write_all(path, most, folder):
    """The images of a data set as a folder, a parquet file and tar files."""
    source = open_images(str(path)).train
    files = [source.read(int(i)) for i in np.linspace(0, len(source) - 1, min(most, len(source)))]
    for name in ("files", "table", "shards"):
        (folder / name).mkdir(parents=True)
    for i, data in enumerate(files):
        (folder / "files" / f"{i:06}.jpg").write_bytes(data)
    rows = pa.array([{"bytes": data, "path": None} for data in files])
    pq.write_table(pa.table({"image": rows}), folder / "table" / "train.parquet")
    for shard in range(NUM_SHARDS):
        with tarfile.open(folder / "shards" / f"{shard:06}.tar", "w") as tar:
            for i in range(shard, len(files), NUM_SHARDS):
                entry = tarfile.TarInfo(f"{i:06}.jpg")
                entry.size = len(files[i])
                tar.addfile(entry, io.BytesIO(files[i]))
    return len(files)


def settings_of(size):
    """Ours; those of `transforms_of` are the same."""
    return Config().replace(image_size=size, batch_size=BATCH, views=VIEWS, blur_probability=0.5 if size > 32 else 0.0)


def transforms_of(size):
    a = settings_of(size).augmentation
    blur = [v2.RandomApply([v2.GaussianBlur(23, (a.blur_sigma_min, a.blur_sigma_max))], a.blur_probability)]
    return v2.Compose([
        v2.ToImage(),
        v2.RandomResizedCrop(size, (a.crop_scale_min, a.crop_scale_max), antialias=True),
        v2.RandomHorizontalFlip(a.flip_probability),
        v2.RandomApply([v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue)], a.jitter_probability),
        v2.RandomGrayscale(a.gray_probability),
        *(blur if a.blur_probability else []),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(a.mean, a.std),
    ])  # fmt: skip


def views_of(transform, image):
    image = image.convert("RGB")
    return torch.stack([transform(image) for _ in range(VIEWS)])


def timed(batches, seconds):
    """Images a second of batches without end."""
    window = Window(seconds)
    for views in batches:
        assert views.shape[0] * views.shape[1] == VIEWS * BATCH
        window.step()
        if window.done:
            return BATCH * window.num_steps / window.elapsed
    raise AssertionError("batches without end ended")


def ours(size, seconds, path, *, cache=None, place=None):
    """Our loader; decoded at every use, or once into a cache. Copies of shards go to a new folder in `place`."""
    config = settings_of(size)
    if place is not None:
        config = config.replace(cache=tempfile.mkdtemp(dir=place))
    kept = None if cache is None else ImageCache(str(cache), 100.0, say=print, warn=print)
    source = open_images(str(path), config.data).train
    store = load_images(source, shortest=shortest_of(config), memory_gb=0.0, cache=kept)
    loader = Loader(store, config, Rank())
    batches = loader.batches(0, ENDLESS)
    try:
        return timed((loader.views(batch, torch.device("cpu")) for batch in batches), seconds)
    finally:
        batches.close()


class Files(Dataset):
    """The files of a folder."""

    def __init__(self, folder, transform):
        self.paths, self.transform = sorted(folder.iterdir()), transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return views_of(self.transform, Image.open(self.paths[index]))


def by_data_loader(images, seconds):
    sampler = RandomSampler(images, replacement=True, num_samples=ENDLESS)
    return timed(iter(DataLoader(images, BATCH, sampler=sampler, num_workers=usable_cores())), seconds)


def torch_on_files(size, seconds, path):
    return by_data_loader(Files(path, transforms_of(size)), seconds)


def hugging_face(size, seconds, path):
    """The library `datasets` on a parquet file, by a DataLoader."""
    transform = transforms_of(size)
    images = datasets.Dataset.from_parquet(str(path / "train.parquet"), cache_dir=str(path.parent / "datasets"))
    images = images.cast_column("image", datasets.Image())
    images.set_transform(lambda some: {"views": [views_of(transform, image) for image in some["image"]]})
    sampler = RandomSampler(images, replacement=True, num_samples=ENDLESS)
    loader = DataLoader(
        images, BATCH, sampler=sampler, num_workers=usable_cores(),
        collate_fn=lambda rows: torch.stack([row["views"] for row in rows]),
    )  # fmt: skip
    return timed(iter(loader), seconds)


def web_dataset(size, seconds, urls):
    """Tar files in order, shuffled in a buffer of a thousand."""
    images = (
        webdataset.WebDataset(urls, resampled=True, shardshuffle=False)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg")
        .map_tuple(functools.partial(views_of, transforms_of(size)))
        .batched(BATCH, partial=False)
    )
    loader = webdataset.WebLoader(images, batch_size=None, num_workers=usable_cores())
    return timed((views for (views,) in loader), seconds)


def serve(folder):
    """A server of a folder, in a process of its own -> it, and its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        time.sleep(0.1)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"http://127.0.0.1:{port}"
    raise RuntimeError("the server of the shards did not start")


def arms_of(size, seconds, folder, address):
    """What is measured: a function of each source of images."""
    shards = [f"{shard:06}.tar" for shard in range(NUM_SHARDS)]
    names = f"{{000000..{NUM_SHARDS - 1:06}}}.tar"
    return {
        "DataLoader, folder": lambda: torch_on_files(size, seconds, folder / "files"),
        "datasets, parquet": lambda: hugging_face(size, seconds, folder / "table"),
        "webdataset, tar": lambda: web_dataset(size, seconds, [str(folder / "shards" / shard) for shard in shards]),
        "webdataset, tar by HTTP": lambda: web_dataset(size, seconds, [f"{address}/{shard}" for shard in shards]),
        "ours, folder": lambda: ours(size, seconds, folder / "files"),
        "ours, parquet": lambda: ours(size, seconds, folder / "table"),
        "ours, cache": lambda: ours(size, seconds, folder / "files", cache=folder / "cache"),
        "ours, tar": lambda: ours(size, seconds, folder / "shards", place=folder),
        "ours, tar by HTTP": lambda: ours(size, seconds, f"{address}/{names}", place=folder),
    }


def that_open(arms):
    """The arms that can open their images, and why the others cannot. Ours run once, which builds the cache."""
    left_out = {}
    for name, arm in arms.items():
        try:
            if name.startswith("ours"):
                arm()
        except StopgradError as error:
            left_out[name] = str(error)
    return {name: arm for name, arm in arms.items() if name not in left_out}, left_out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path, help="images of about 32 pixels")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each arm and round, after a warm-up")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    datasets.disable_progress_bars()
    found = []
    with tempfile.TemporaryDirectory() as place:
        for size, path, most in ((32, arguments.small, NUM_SMALL), (224, arguments.photos, ENDLESS)):
            folder = Path(place) / str(size)
            count = write_all(path, most, folder)
            server, address = serve(folder / "shards")
            try:
                arms, left_out = that_open(arms_of(size, 0.1, folder, address))
                lasting = arms_of(size, arguments.seconds, folder, address)
                rates = rounds.in_turn({name: lasting[name] for name in arms}, arguments.rounds, told=f"{size} px")
            finally:
                server.terminate()
                server.wait()
            entry = {"size": size, "images": count, "arms": rounds.beside(rates, "DataLoader, folder")}
            found.append({**entry, "left_out": left_out})
    packages = ("torchvision", "webdataset", "datasets", "simplejpeg")
    sizes = {"batch": BATCH, "views": VIEWS, "workers": usable_cores()}
    rounds.write(arguments.out, {**rounds.machine(packages), **sizes, "sizes": found})


if __name__ == "__main__":
    main()
