"""Decoders of JPEG beside Pillow, as `data/decode.py` uses it: images a second, and how far their pixels differ.

    python benchmarks/decoders.py CIFAR10/train.parquet FLOWERS12 --out benchmarks/results/decoders.json

Needs simplejpeg, opencv-python-headless, imagecodecs and torchvision. Of the photos mosaics of 500 x 375, 1600 x 1200
and 4032 x 3024 pixels are made too (quality 90, 4:2:0). Everything is reduced to a shorter side of 292 pixels, as for
views of 224; what is left to reduce after decoding is always done by Pillow, as in `decode`. One thread: images a
second of processor time, which other load changes little; two threads: by the clock. Arms take turns, and ratios are
to Pillow in the same round.

With --adopting: what the extra `jpeg` changes, by which simplejpeg decodes plain JPEGs that are not reduced: on how
many images of both data sets its pixels are Pillow's, and images a second of processor time by `load_images`.
"""

import argparse
import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import rounds
import simplejpeg
import torch
import torchvision
from PIL import Image

from stopgrad.cache.store import load_images
from stopgrad.data.decode import decode
from stopgrad.data.open import open_images
from stopgrad.data.readers import jpeg
from stopgrad.data.sources import Subset

SHORTEST = 292
THREADS = (1, 2)


def by_pillow(data):
    """`decode` as it is without simplejpeg; see `main`."""
    return decode(data, shortest=SHORTEST)


def by_torchvision(data):
    pixels = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode="RGB")
    return reduced(pixels.permute(1, 2, 0).contiguous().numpy())


def by_simplejpeg(data):
    """Decoded in full."""
    return reduced(simplejpeg.decode_jpeg(data))


def by_simplejpeg_scaled(data):
    """At the smallest of libjpeg-turbo's sixteen scales that is large enough."""
    return reduced(simplejpeg.decode_jpeg(data, min_height=SHORTEST, min_width=SHORTEST))


def by_simplejpeg_halved(data):
    """At the scale that Pillow chooses: a half, a quarter or an eighth."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    scale = largest_scale(height, width)
    return reduced(simplejpeg.decode_jpeg(data, min_height=-(-height // scale), min_width=-(-width // scale)))


def by_opencv(data):
    """At the scale that Pillow chooses; upright."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    flag = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}.get(
        largest_scale(height, width), cv2.IMREAD_REDUCED_COLOR_8
    )
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    return reduced(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def by_imagecodecs(data):
    """Decoded in full."""
    return reduced(imagecodecs.jpeg8_decode(data))


ARMS = {
    "pillow": by_pillow,
    "torchvision": by_torchvision,
    "simplejpeg": by_simplejpeg,
    "simplejpeg, sixteen scales": by_simplejpeg_scaled,
    "simplejpeg, Pillow's scales": by_simplejpeg_halved,
    "opencv, Pillow's scales": by_opencv,
    "imagecodecs": by_imagecodecs,
}


def largest_scale(height, width):
    """How many times smaller Pillow's draft decodes: 1, 2, 4 or 8."""
    return max(scale for scale in (1, 2, 4, 8) if scale == 1 or min(height, width) // scale >= SHORTEST)


def reduced(pixels):
    """As the end of `decode`."""
    height, width = pixels.shape[:2]
    if min(height, width) <= SHORTEST:
        return pixels
    ratio = SHORTEST / min(height, width)
    size = max(SHORTEST, round(width * ratio)), max(SHORTEST, round(height * ratio))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def files_of(path, count):
    """The encoded images of a data set, evenly spaced."""
    source = open_images(str(path)).train
    return [source.read(int(i)) for i in np.linspace(0, len(source) - 1, min(count, len(source)))]


def mosaics(photos, size, count):
    """Large JPEGs, of photos side by side in an order of their own."""
    width, height = size
    rng = np.random.default_rng(0)
    tiles = [decode(photo) for photo in photos]
    made = []
    for _ in range(count):
        rows = []
        while sum(row.shape[0] for row in rows) < height:
            row = []
            while sum(tile.shape[1] for tile in row) < width:
                row.append(tiles[rng.integers(len(tiles))])
            least = min(tile.shape[0] for tile in row)
            rows.append(np.concatenate([tile[:least] for tile in row], axis=1)[:, :width])
        file = io.BytesIO()
        Image.fromarray(np.concatenate(rows)[:height]).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def rate_alone(arm, files, seconds):
    """Images a second of processor time, of files in turn until the time is over."""
    arm(files[0])
    began, done = time.process_time(), 0
    while time.process_time() - began < seconds:
        for data in files:
            arm(data)
        done += len(files)
    return done / (time.process_time() - began)


def rate(arm, files, threads, seconds):
    """Images a second by the clock."""
    if threads == 1:
        return rate_alone(arm, files, seconds)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(arm, files[:threads]))
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            list(pool.map(lambda some: [arm(data) for data in some], [files[i::threads] for i in range(threads)]))
            done += len(files)
        return done / (time.perf_counter() - began)


def longest_wait(arm, data, tries=9):
    """How long a call keeps other threads of Python waiting, as a share of the call: the least of some tries.

    Near 1 the decoder holds the interpreter's lock, near 0 it lets go of it.
    """
    found = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(tries):
            began = last = time.perf_counter()
            waits, call = 0.0, pool.submit(arm, data)
            while not call.done():
                now = time.perf_counter()
                waits, last = max(waits, now - last), now
            found.append(waits / (time.perf_counter() - began))
    return round(min(found), 2)


def differences(arm, files):
    """Of pixel values in 0..255 from Pillow's: the largest of all, the mean, and the share of equal images."""
    largest, sums, equal = 0, [], 0
    for data in files:
        ours, theirs = by_pillow(data), arm(data)
        if ours.shape != theirs.shape:
            return {"shape": [list(ours.shape), list(theirs.shape)]}
        difference = np.abs(ours.astype(int) - theirs.astype(int))
        largest, equal = max(largest, int(difference.max())), equal + (not difference.any())
        sums.append(difference.mean())
    return {"max": largest, "mean": round(float(np.mean(sums)), 4), "equal_images": equal / len(files)}


def adopting(path, shortest, num_rounds):
    """Of a data set: how many images are equal, and the rate at which its first 5,000 are loaded into memory."""
    source = open_images(str(path)).train
    some = Subset(source, list(range(min(len(source), 5000))))

    def pixels_by(package, data):
        jpeg.simplejpeg = package
        return decode(data)

    def rate_of(package):
        jpeg.simplejpeg = package
        began = time.process_time()
        load_images(some, shortest=shortest, workers=1)
        return len(some) / (time.process_time() - began)

    files = (source.read(i) for i in range(len(source)))
    equal = sum(np.array_equal(pixels_by(None, data), pixels_by(simplejpeg, data)) for data in files)
    arms = {"pillow": lambda: rate_of(None), "simplejpeg": lambda: rate_of(simplejpeg)}
    loaded = rounds.beside(rounds.in_turn(arms, num_rounds), "pillow")
    return {"images": len(source), "equal": equal, "shortest": shortest, "loaded": loaded}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path, help="images of about 32 pixels")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each arm, round and number of threads")
    parser.add_argument("--adopting", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    jpeg.simplejpeg = None
    packages = ("simplejpeg", "opencv-python-headless", "imagecodecs")
    if arguments.adopting:
        found = {
            "small": adopting(arguments.small, 43, arguments.rounds),
            "photos": adopting(arguments.photos, SHORTEST, arguments.rounds),
        }
        rounds.write(arguments.out, {**rounds.machine(packages), **found})
        return
    photos = files_of(arguments.photos, 120)
    sets = {
        "32 x 32": files_of(arguments.small, 1000),
        "photos as they are": photos,
        "500 x 375": mosaics(photos, (500, 375), 60),
        "1600 x 1200": mosaics(photos, (1600, 1200), 12),
        "4032 x 3024": mosaics(photos, (4032, 3024), 4),
    }
    found = []
    for name, files in sets.items():
        arms = {
            (arm, threads): lambda decoder=decoder, threads=threads: rate(decoder, files, threads, arguments.seconds)  # noqa: B023
            for threads in THREADS for arm, decoder in ARMS.items()
        }  # fmt: skip
        rates = rounds.in_turn(arms, arguments.rounds, told=name)
        entry = {"images": name, "files": len(files), "kb_a_file": round(sum(map(len, files)) / len(files) / 1000, 1)}
        for threads in THREADS:
            own = {arm: rates[arm, threads] for arm in ARMS}
            entry[f"threads_{threads}"] = rounds.beside(own, "pillow")
        entry["from_pillow"] = {arm: differences(decoder, files) for arm, decoder in ARMS.items()}
        found.append(entry)
    # Of the largest image, beside which starting the call is nothing.
    waits = {arm: longest_wait(decoder, files[0]) for arm, decoder in ARMS.items()}
    about = {"shortest": SHORTEST, **rounds.machine(packages)}
    rounds.write(arguments.out, {**about, "sets": found, "longest_wait": waits})


if __name__ == "__main__":
    main()
