"""Draws the picture at the head of the README, from a finished run and its folder of photos.

    python docs/front.py RUN PHOTOS docs/images/front.jpg

On the left three queries, drawn by a seed and not chosen, each with the photos nearest to it; on the right the map of
all photos, as the page of the run arranges them.
"""

import argparse
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, ImageOps

from stopgrad import load_encoder
from stopgrad.report.parts.layout import layout_2d

QUERY, TILE, GAP, MAP, DOT, HEADER = 132, 64, 6, 560, 30, 30


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("photos", type=Path)
    parser.add_argument("out")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    paths = sorted(path for path in a.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    features = F.normalize(load_encoder(a.run).embed(paths), dim=1)
    rows = np.random.default_rng(a.seed).choice(len(paths), a.queries, replace=False)

    def photo(index: int, side: int) -> Image.Image:
        return ImageOps.fit(Image.open(paths[index]).convert("RGB"), (side, side), Image.Resampling.LANCZOS)

    left = QUERY + 3 * GAP + 4 * (TILE + GAP)
    sheet = Image.new("RGB", (left + MAP + 3 * GAP, HEADER + MAP + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    draw.text((GAP, GAP), "Query", fill="#222", font=font)
    draw.text((QUERY + 3 * GAP, GAP), "Nearest photos", fill="#222", font=font)
    draw.text(
        (left + 2 * GAP, GAP), f"All {len(paths)} photos, near where their features are near", fill="#222", font=font
    )
    for row, index in enumerate(rows):
        top = HEADER + row * (QUERY + GAP)
        sheet.paste(photo(index, QUERY), (GAP, top))
        # The query itself is the nearest.
        for place, found in enumerate((features @ features[index]).topk(9).indices.tolist()[1:]):
            at = (QUERY + 3 * GAP + place % 4 * (TILE + GAP), top + place // 4 * (TILE + 4))
            sheet.paste(photo(found, TILE), at)
    arranged = layout_2d(features)
    assert arranged is not None
    points = arranged[0]
    points = (points - points.min(0)) / (points.max(0) - points.min(0)) * (MAP - DOT)
    for index in np.random.default_rng(a.seed).permutation(len(paths)).tolist():
        x, y = points[index].astype(int).tolist()
        sheet.paste(photo(index, DOT), (left + 2 * GAP + x, HEADER + MAP - DOT - y))
    sheet.save(a.out, quality=88)


if __name__ == "__main__":
    main()
