"""Draws the sheets of views of docs/augmentation.md, one a preset, and one with local views.

    python docs/view_sheets.py docs/images

Photos: china.jpg and flower.jpg of scikit-learn (CC BY 2.0). All other images are drawn here, by a seed: they show what
the augmentation does, not what such images look like.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_sample_images

from stopgrad.presets import PRESETS, preset_of
from stopgrad.report.sheet import write_preview

SIDE = 256
Rng = np.random.Generator
TEXT = ["The", "two", "views", "of", "an", "image", "pass", "the", "same", "network", "and", "meet", "again"]


def photos(rng: Rng) -> list[Image.Image]:
    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    return [china, flower, china.crop((180, 60, 460, 300))]


def parts_of_photos(rng: Rng) -> list[Image.Image]:
    """With less of the sky, which makes white local views."""
    china, flower = photos(rng)[:2]
    return [china.crop((0, 180, 300, 427)), flower, china.crop((130, 70, 340, 420))]


def small_photos(rng: Rng) -> list[Image.Image]:
    china, flower = photos(rng)[:2]
    boxes = ((china, (180, 60, 460, 340)), (flower, (180, 30, 560, 410)), (china, (0, 200, 200, 400)))
    return [photo.crop(box).resize((32, 32), Image.Resampling.BOX) for photo, box in boxes]


def tissue(rng: Rng) -> list[Image.Image]:
    """Pink ground and violet nuclei, as of haematoxylin and eosin."""
    pictures = []
    for density in (30, 90, 170):
        picture = Image.new("RGB", (SIDE, SIDE), (236, 190, 214))
        draw = ImageDraw.Draw(picture)
        for _ in range(60):
            x, y, r = *rng.uniform(0, SIDE, 2), rng.uniform(10, 40)
            colour = tuple(int(c) for c in rng.integers((214, 150, 185), (240, 180, 215)))
            draw.ellipse((x - r, y - r / 2, x + r, y + r / 2), fill=colour)
        for _ in range(density):
            x, y, a, b = *rng.uniform(0, SIDE, 2), *rng.uniform(3, 9, 2)
            colour = tuple(int(c) for c in rng.integers((70, 40, 120), (120, 80, 165)))
            draw.ellipse((x - a, y - b, x + a, y + b), fill=colour, outline=(60, 30, 100))
        pictures.append(picture.filter(ImageFilter.GaussianBlur(0.7)))
    return pictures


def radiographs(rng: Rng) -> list[Image.Image]:
    """A chest of ellipses: lungs dark, spine, ribs and heart light; in the last a light spot."""
    pictures = []
    for kind in range(3):
        picture = Image.new("L", (SIDE, SIDE), 10)
        draw = ImageDraw.Draw(picture)
        lean = int(rng.integers(-6, 7))
        draw.ellipse((18, 10, 238, 330), fill=130)
        for left, right in ((42, 118), (138, 214)):
            draw.ellipse((left + lean, 46, right + lean, 226), fill=48)
        draw.ellipse((104 + lean, 116, 176 + lean + 8 * kind, 214), fill=150)
        draw.rectangle((120 + lean, 10, 136 + lean, SIDE), fill=176)
        for y in range(50, 220, 24):
            draw.arc((36 + lean, y, 124 + lean, y + 60), 180, 350, fill=118, width=4)
            draw.arc((132 + lean, y, 220 + lean, y + 60), 190, 360, fill=118, width=4)
        if kind == 2:
            draw.ellipse((66, 92, 86, 110), fill=170)
        noisy = np.asarray(picture.filter(ImageFilter.GaussianBlur(2.5))) + rng.normal(0, 4, (SIDE, SIDE))
        pictures.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert("RGB"))
    return pictures


def ground(rng: Rng) -> list[Image.Image]:
    """Fields, a river, a road and houses from above."""
    pictures = []
    for kind in range(3):
        picture = Image.new("RGB", (SIDE, SIDE), (92, 120, 70))
        draw = ImageDraw.Draw(picture)
        for x in range(0, SIDE, 64):
            for y in range(0, SIDE, 48):
                colour = ((104, 132, 66), (150, 138, 92), (74, 104, 58), (172, 160, 112))[int(rng.integers(4))]
                draw.rectangle((x + 1, y + 1, x + 62, y + 46), fill=colour)
        points = [(x, 60 + 50 * kind + 26 * np.sin(x / 34 + kind)) for x in range(-10, SIDE + 11, 4)]
        draw.line(points, fill=(58, 88, 112), width=16 - 4 * kind, joint="curve")
        draw.line(((150 - 40 * kind, 0), (190, SIDE)), fill=(168, 164, 158), width=6)
        for _ in range(8 + 26 * kind):
            x, y, width = *rng.uniform(0, SIDE - 14, 2), rng.uniform(6, 13)
            roof = ((176, 96, 78), (196, 190, 186))[int(rng.integers(2))]
            draw.rectangle((x, y, x + width, y + 8), fill=roof)
        noisy = np.asarray(picture) + rng.normal(0, 6, (SIDE, SIDE, 1))
        pictures.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    return pictures


def pages(rng: Rng) -> list[Image.Image]:
    """A letter, a table and a page of two columns, on paper that is not quite white."""

    def lines(draw: ImageDraw.ImageDraw, left: int, right: int, top: int, bottom: int) -> None:
        font = ImageFont.load_default(9)
        for y in range(top, bottom, 12):
            words, at = list(rng.permutation(TEXT)), left
            while words and at + draw.textlength(words[-1], font) < right:
                draw.text((at, y), words[-1], fill=(40, 40, 48), font=font)
                at += int(draw.textlength(words.pop() + " ", font))

    pictures = []
    for kind in range(3):
        page = Image.new("RGB", (SIDE, 330), ((247, 244, 234), (238, 240, 242), (250, 246, 240))[kind])
        draw = ImageDraw.Draw(page)
        draw.text((24, 18), ("Letter", "Invoice", "Report")[kind], fill=(20, 40, 110), font=ImageFont.load_default(20))
        if kind == 0:
            lines(draw, 24, 236, 70, 260)
        elif kind == 1:
            for y in range(60, 300, 22):
                draw.line(((24, y), (232, y)), fill=(120, 120, 128))
            for x in (24, 130, 180, 232):
                draw.line(((x, 60), (x, 302)), fill=(120, 120, 128))
            for y in range(64, 280, 22):
                lines(draw, 28, 126, y, y + 12)
                draw.text((140, y), str(rng.integers(10, 900)), fill=(40, 40, 48), font=ImageFont.load_default(9))
        else:
            lines(draw, 20, 124, 60, 310)
            lines(draw, 134, 240, 60, 190)
            draw.rectangle((134, 200, 238, 306), fill=(196, 208, 220), outline=(90, 100, 120))
        pictures.append(page)
    return pictures


IMAGES: dict[str, Callable[[Rng], list[Image.Image]]] = {
    "photo": photos,
    "small_image": small_photos,
    "microscopy": tissue,
    "medical": radiographs,
    "satellite": ground,
    "document": pages,
}


def draw_sheet(out: Path, made_by: Callable[[Rng], list[Image.Image]], given: dict[str, object], columns: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(made_by(np.random.default_rng(0))):
            picture.save(Path(folder) / f"{number}.png")
        write_preview(folder, out=out, recipe="photos_small", given=given, num_images=3, num_views=columns)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    # The presets' blur is for views of 224 pixels: half of it at 96.
    blur = {"blur_sigma_max": 1.0}
    for name in PRESETS:
        size = 32 if name == "small_image" else 96
        draw_sheet(out / f"views_{name}.jpg", IMAGES[name], {**preset_of(name), **blur, "image_size": size}, 7)
    given = {**preset_of("photo"), **blur, "image_size": 96, "local_views": 6}
    draw_sheet(out / "views_multicrop.jpg", parts_of_photos, given, 4)


if __name__ == "__main__":
    main()
