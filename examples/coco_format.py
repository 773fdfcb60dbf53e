"""Images with boxes and masks in COCO's format, as torchvision's detectors take them.

    python examples/coco_format.py IMAGES ANNOTATIONS.json

counts what is in a set: run it on your own before you train. `examples/detection.py` reads with this.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset


class CocoImages(Dataset):
    """Each image as float `[3, height, width]` in 0..1, with its boxes (x1, y1, x2, y2), labels, crowd and masks.

    Labels count from 1 in the order of the categories' ids; 0 is the background. Boxes without an area are left out.
    """

    def __init__(self, images: Path, annotations: Path, *, masks: bool = False) -> None:
        whole = json.loads(annotations.read_text(encoding="utf-8"))
        self.folder, self.masks = images, masks
        self.images: list[dict[str, Any]] = sorted(whole["images"], key=lambda image: image["id"])
        names = {category["id"]: category["name"] for category in whole["categories"]}
        self.category_ids = sorted(names)
        self.classes = [names[i] for i in self.category_ids]
        self.objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for one in whole["annotations"]:
            if min(one["bbox"][2:]) > 0:
                self.objects[one["image_id"]].append(one)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = self.images[index]
        with Image.open(self.folder / image["file_name"]) as file:
            pixels = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        height, width = pixels.shape[:2]
        if (height, width) != (image["height"], image["width"]):
            raise ValueError(f"{file.filename} is {width} x {height}, its annotation says another size.")
        objects = self.objects[image["id"]]
        boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [self.category_ids.index(one["category_id"]) + 1 for one in objects]
        target = {
            "boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64),
            "crowd": torch.tensor([bool(one.get("iscrowd", 0)) for one in objects], dtype=torch.bool),
        }  # fmt: skip
        if self.masks:
            masks = [mask_of(one["segmentation"], height, width) for one in objects]
            target["masks"] = torch.from_numpy(np.array(masks, np.uint8).reshape(-1, height, width))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255, target


class ToTrainOn(Dataset):
    """The images that have objects, without the crowds, mirrored with a probability."""

    def __init__(self, images: CocoImages, flip: float) -> None:
        self.images, self.flip = images, flip
        self.kept = [i for i, image in enumerate(images.images)
                     if any(not one.get("iscrowd", 0) for one in images.objects[image["id"]])]  # fmt: skip

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, target = self.images[self.kept[index]]
        kept = ~target.pop("crowd")
        target = {name: values[kept] for name, values in target.items()}
        if torch.rand(()) < self.flip:
            image = image.flip(-1)
            target["boxes"] = torch.stack(
                [image.shape[-1] - target["boxes"][:, 2], target["boxes"][:, 1],
                 image.shape[-1] - target["boxes"][:, 0], target["boxes"][:, 3]], dim=1)  # fmt: skip
            if "masks" in target:
                target["masks"] = target["masks"].flip(-1)
        return image, target


def mask_of(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A mask `[height, width]` of COCO's polygons or run lengths.

    Raises:
        ValueError: compressed run lengths without pycocotools, which decodes them.
    """
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), bool)
        for polygon in segmentation:
            mask |= fill(polygon, height, width)
        return mask
    counts = segmentation["counts"]
    if isinstance(counts, str):
        try:
            from pycocotools.mask import decode
        except ImportError:
            raise ValueError("a mask is in compressed run lengths: pip install pycocotools.") from None
        return decode({**segmentation, "counts": counts.encode()}).astype(bool)
    ones = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return ones.reshape(tuple(segmentation["size"]), order="F")


def fill(polygon: Sequence[float], height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie inside x1, y1, x2, y2, ..., by the even-odd rule."""
    corners = np.asarray(polygon, float).reshape(-1, 2)
    inside = np.zeros((height, width), bool)
    centres_y, centres_x = np.arange(height) + 0.5, np.arange(width) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = (y0 <= centres_y) != (y1 <= centres_y)
        if rows.any():
            crossed = x0 + (centres_y[rows] - y0) * (x1 - x0) / (y1 - y0)
            inside[rows] ^= centres_x > crossed[:, None]
    return inside


def main() -> None:
    """Count a set's images and objects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("annotations", type=Path)
    arguments = parser.parse_args()
    found = CocoImages(arguments.images, arguments.annotations)
    absent = [image["file_name"] for image in found.images if not (found.folder / image["file_name"]).is_file()]
    number = Counter(one["category_id"] for objects in found.objects.values() for one in objects)
    print(f"{len(found)} images, {len(found) - len(found.objects)} without objects; {sum(number.values())} objects")
    for category, name in zip(found.category_ids, found.classes, strict=True):
        print(f"{number[category]:8,} {name}")
    if absent:
        sys.exit(f"{len(absent)} images are not in {found.folder}, the first {absent[0]}")


if __name__ == "__main__":
    main()
