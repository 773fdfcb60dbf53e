"""Draws the picture of nearest neighbours that stands in the README, from a finished run.

    python docs/neighbours.py RUN DATA docs/images/neighbours.png

Every row is a test image; beside it the training images nearest to it by the trained features, then by raw pixels. A
green frame marks the same class, a red one another. The rows are drawn by a seed, not chosen.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from stopgrad import load_encoder
from stopgrad.data.decode import decode
from stopgrad.data.open import open_images
from stopgrad.data.sources import Subset

TILE, FRAME, GAP, HEADER = 64, 3, 6, 26


def nearest(bank: torch.Tensor, queries: torch.Tensor, num: int) -> np.ndarray:
    return (F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T).topk(num, dim=1).indices.numpy()


def tile(source, index: int, colour: str) -> Image.Image:
    framed = Image.new("RGB", (TILE + 2 * FRAME,) * 2, colour)
    framed.paste(
        Image.fromarray(decode(source.read(int(index)))).resize((TILE, TILE), Image.Resampling.BICUBIC), (FRAME, FRAME)
    )
    return framed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--neighbours", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    splits = open_images(a.data)
    rows = np.random.default_rng(a.seed).choice(len(splits.test), a.rows, replace=False).tolist()
    encoder = load_encoder(a.run)
    queries = Subset(splits.test, rows)
    by_features = nearest(encoder.embed(splits.train), encoder.embed(queries), a.neighbours)
    pixels = [
        torch.stack([
            torch.from_numpy(decode(s.read(i), shortest=32)[:32, :32].copy()).float().flatten() for i in range(len(s))
        ])
        for s in (splits.train, queries)
    ]  # fmt: skip
    by_pixels = nearest(*pixels, a.neighbours)
    step = TILE + 2 * FRAME + GAP
    blocks = [0, step + 3 * GAP, step + 3 * GAP + a.neighbours * step + 3 * GAP]
    sheet = Image.new("RGB", (blocks[2] + a.neighbours * step + GAP, HEADER + a.rows * step + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for x, title in zip(blocks, ("test image", "nearest by trained features", "nearest by raw pixels"), strict=True):
        draw.text((GAP + x, 5), title, "black", font)
    for row in range(a.rows):
        y = HEADER + row * step
        sheet.paste(tile(queries, row, "white"), (GAP + blocks[0], y))
        for block, found in ((1, by_features), (2, by_pixels)):
            for column, index in enumerate(found[row]):
                same = splits.train.label(int(index)) == queries.label(row)
                sheet.paste(
                    tile(splits.train, index, "#2a9d4a" if same else "#d1495b"),
                    (GAP + blocks[block] + column * step, y),
                )
    sheet.save(a.out, optimize=True)


if __name__ == "__main__":
    main()
