"""A small detection set in COCO format without a download: scikit-learn's digits, coloured, on cluttered backgrounds.

    python examples/make_digit_scenes.py OUT

OUT gets train/ and test/ (scenes of 1 to 4 digits, 10 classes), train.json and test.json (their boxes and masks, in
COCO's format), and unlabelled/ (crops with one digit each, to pretrain on, without labels). The digits in the test
scenes are in no other image.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

# Of 1,797 scans: the first for training, the rest for testing.
NUM_TRAIN_DIGITS = 1437


def background(rng: np.random.Generator, size: int) -> Image.Image:
    """One colour with smooth noise, and lines, ellipses and rectangles strewn over it."""
    cells = max(2, size // 20)
    coarse = rng.integers(40, 216, 3) + rng.integers(-40, 41, (cells, cells, 3))
    image = Image.fromarray(coarse.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(size * size // 1000):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        x, y = rng.integers(-8, size, 2).tolist()
        w, h = rng.integers(4, 28, 2).tolist()
        kind = rng.integers(3)
        if kind == 0:
            draw.line((x, y, x + w, y + h * int(rng.choice([-1, 1]))), colour, int(rng.integers(1, 4)))
        elif kind == 1:
            draw.ellipse((x, y, x + w, y + h), outline=colour, width=int(rng.integers(1, 4)))
        else:
            draw.rectangle((x, y, x + w, y + h), outline=colour, width=int(rng.integers(1, 4)))
    return image


def paste(rng: np.random.Generator, image: Image.Image, digit: np.ndarray, side: int, x: int, y: int) -> np.ndarray:
    """Draw a digit of `side` pixels at (x, y), coloured unlike what is below; returns its mask `[height, width]`."""
    ink = Image.fromarray((digit / 16 * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    ink = ink.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BICUBIC)
    alpha = Image.new("L", image.size)
    alpha.paste(ink, (x, y))
    mask = np.asarray(alpha) >= 112
    below = np.asarray(image)[mask].mean(axis=0)
    colours = rng.integers(0, 256, (12, 3))
    colour = colours[np.abs(colours - below).sum(axis=1).argmax()]
    # As steep at the mask's edge as ink, and half there.
    steep = alpha.point(lambda value: max(0, min(255, 4 * (value - 112) + 128)))
    image.paste(tuple(int(c) for c in colour), mask=steep)
    return mask


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's uncompressed run-length encoding: lengths of zeros and ones in turn, down the columns, zeros first."""
    flat = np.concatenate([[0], mask.flatten(order="F").astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return {"counts": counts[: len(changes) + (changes[-1] < mask.size)].tolist(), "size": list(mask.shape)}


def scene(
    rng: np.random.Generator, digits: np.ndarray, labels: np.ndarray, size: int
) -> tuple[Image.Image, list[tuple[int, np.ndarray]]]:
    """An image of up to 5 digits, as many as find room, with each one's label and mask."""
    image, found, taken = background(rng, size), [], np.zeros((size, size), bool)
    for _ in range(int(rng.integers(2, 6))):
        side = int(rng.integers(28, 65))
        x, y = rng.integers(0, size - side + 1, 2).tolist()
        if taken[y : y + side, x : x + side].any():
            continue
        taken[y : y + side, x : x + side] = True
        which = int(rng.integers(len(digits)))
        found.append((int(labels[which]), paste(rng, image, digits[which], side, x, y)))
    return image, found


def write_scenes(
    out: Path, name: str, number: int, size: int, digits: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> None:
    """Write `number` scenes into out/name/ and their annotations into out/name.json."""
    (out / name).mkdir(parents=True)
    images, annotations = [], []
    for i in range(number):
        image, found = scene(rng, digits, labels, size)
        image.save(out / name / f"{i:05d}.jpg", quality=92)
        images.append({"id": i + 1, "file_name": f"{i:05d}.jpg", "width": size, "height": size})
        for label, mask in found:
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            x, y = int(columns[0]), int(rows[0])
            annotations.append({
                "id": len(annotations) + 1, "image_id": i + 1, "category_id": label + 1, "iscrowd": 0,
                "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y], "area": int(mask.sum()),
                "segmentation": run_lengths(mask),
            })  # fmt: skip
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (out / f"{name}.json").write_text(json.dumps(whole))


def write_crops(out: Path, number: int, digits: np.ndarray, rng: np.random.Generator, size: int = 64) -> None:
    """Write `number` crops of one digit each into out/unlabelled/."""
    (out / "unlabelled").mkdir(parents=True)
    for i in range(number):
        image = background(rng, size)
        side = int(rng.integers(40, size + 1))
        x, y = rng.integers(0, size - side + 1, 2).tolist()
        paste(rng, image, digits[int(rng.integers(len(digits)))], side, x, y)
        image.save(out / "unlabelled" / f"{i:05d}.jpg", quality=92)


def make(out: Path, num_train: int = 200, num_test: int = 60, num_crops: int = 4000, size: int = 128) -> None:
    """Write everything; the same pixels every time."""
    found = load_digits()
    train, test = slice(None, NUM_TRAIN_DIGITS), slice(NUM_TRAIN_DIGITS, None)
    streams = [np.random.default_rng(seed) for seed in (0, 1, 2)]
    write_scenes(out, "train", num_train, size, found.images[train], found.target[train], streams[0])
    write_scenes(out, "test", num_test, size, found.images[test], found.target[test], streams[1])
    write_crops(out, num_crops, found.images[train], streams[2])


def main() -> None:
    """Read the command line and write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=200, help="training scenes")
    parser.add_argument("--test", type=int, default=60, help="test scenes")
    parser.add_argument("--unlabelled", type=int, default=4000, help="crops to pretrain on")
    parser.add_argument("--size", type=int, default=128, help="side of a scene in pixels")
    arguments = parser.parse_args()
    if arguments.out.exists():
        sys.exit(f"{arguments.out} exists: remove it, or name another folder.")
    make(arguments.out, arguments.train, arguments.test, arguments.unlabelled, arguments.size)
    print(f"{arguments.out}: {arguments.train} + {arguments.test} scenes, {arguments.unlabelled} unlabelled crops")


if __name__ == "__main__":
    main()
