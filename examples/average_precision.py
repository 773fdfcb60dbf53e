"""COCO's average precision of detections, by pycocotools where it is installed, else by the definition below.

    python examples/average_precision.py ANNOTATIONS.json DETECTIONS.json

ANNOTATIONS is in COCO's format, DETECTIONS in that of its results (a list of image_id, category_id, bbox as x, y,
width, height, and score). `examples/detection.py` uses this for boxes and masks.

Source: the COCO detection evaluation, https://cocodataset.org/#detection-eval.
"""

import argparse
import json
import math
import sys
from collections import defaultdict
from contextlib import redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

# As pycocotools computes them, to the bit: a recall of 7/25 is just below what linspace makes of 0.28.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MAX_DETECTIONS = 100


def box_ious(detected: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Overlaps `[detection, object]` of boxes x1, y1, x2, y2; with a crowd, the share of the detection inside it."""
    corner = np.maximum(detected[:, None, :2], true[None, :, :2])
    other = np.minimum(detected[:, None, 2:], true[None, :, 2:])
    both = np.clip(other - corner, 0, None).prod(axis=2)
    return _over_union(both, *((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (detected, true)), crowd)


def mask_ious(detected: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """The same of masks `[mask, height, width]`."""
    # Not -1, which means nothing where there are no masks.
    pixels = math.prod(detected.shape[1:])
    flat = [masks.reshape(len(masks), pixels).astype(np.float32) for masks in (detected, true)]
    return _over_union(flat[0] @ flat[1].T, flat[0].sum(axis=1), flat[1].sum(axis=1), crowd)


def _over_union(both: np.ndarray, detected: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    union = np.where(crowd[None], detected[:, None], detected[:, None] + true[None] - both)
    return both / np.maximum(union, 1e-12)


def match(ious: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match the detections of one image and class, best score first, to its objects.

    Args:
        ious: `[detection, object]`.
        crowd: `[object]`, whether it stands for many: detections matched to it count neither for nor against.

    Returns:
        Whether each detection is right, and whether it is to be ignored, both `[IoU threshold, detection]`. A
        detection takes the object that it overlaps most of those not yet taken, if by the threshold at least.
    """
    right, ignored = (np.zeros((len(IOU_THRESHOLDS), len(ious)), bool) for _ in range(2))
    for t, threshold in enumerate(IOU_THRESHOLDS):
        free = ~crowd
        for d, overlaps in enumerate(ious):
            left = np.where(free, overlaps, -1.0)
            if left.size and left.max() >= threshold:
                best = int(left.argmax())
                right[t, d], free[best] = True, False
            else:
                ignored[t, d] = bool((overlaps[crowd] >= threshold).any())
    return right, ignored


def average_precision(scores: np.ndarray, right: np.ndarray, num_objects: int) -> float:
    """Area under precision over recall, precision read at 101 recalls as the best at that recall or above.

    Args:
        scores, right: of all detections of one class, `[detection]`.
        num_objects: of that class, at least 1.
    """
    right = right[np.argsort(-scores, kind="stable")]
    true_positives = np.cumsum(right)
    recall = true_positives / num_objects
    precision = true_positives / np.arange(1, len(right) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(recall, RECALLS)].mean())


class AveragePrecision:
    """AP by the definition, fed image by image."""

    name = "examples/average_precision.py (pycocotools is not installed)"

    def __init__(self) -> None:
        self.rows: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = defaultdict(list)
        self.num_objects: dict[int, int] = defaultdict(int)

    def add(
        self, scores: np.ndarray, labels: np.ndarray, detected: np.ndarray, true: np.ndarray, true_labels: np.ndarray,
        crowd: np.ndarray,
    ) -> None:  # fmt: skip
        """Count one image: detections' and objects' boxes `[n, 4]`, or masks `[n, height, width]`."""
        overlaps = box_ious if detected.ndim == 2 else mask_ious
        for label in np.union1d(labels, true_labels).tolist():
            own, there = np.flatnonzero(labels == label), true_labels == label
            own = own[np.argsort(-scores[own], kind="stable")][:MAX_DETECTIONS]
            self.num_objects[label] += int((~crowd[there]).sum())
            ious = overlaps(detected[own], true[there], crowd[there])
            self.rows[label].append((scores[own], *match(ious, crowd[there])))

    def result(self) -> dict[str, Any]:
        """AP (over IoU of .50 to .95), AP50 and AP75 in percent, over the classes that have objects; None without."""
        table = {}
        for label, number in sorted(self.num_objects.items()):
            if number:
                scores = np.concatenate([row[0] for row in self.rows[label]])
                right, ignored = (np.concatenate([row[i] for row in self.rows[label]], axis=1) for i in (1, 2))
                table[label] = [
                    average_precision(scores[~i], r[~i], number) for r, i in zip(right, ignored, strict=True)
                ]
        return _figures(table)


def _figures(table: dict[int, list[float]]) -> dict[str, Any]:
    """Percentages of AP `[class][IoU threshold]`."""
    if not table:
        return {"AP": None, "AP50": None, "AP75": None, "AP_of_class": {}}
    values = 100 * np.array(list(table.values()))
    mean = values.mean(axis=0)
    of_class = {label: round(float(row.mean()), 2) for label, row in zip(table, values, strict=True)}
    figures = {"AP": mean.mean(), "AP50": mean[0], "AP75": mean[5]}
    return {**{name: round(float(value), 2) for name, value in figures.items()}, "AP_of_class": of_class}


def with_pycocotools(annotations: Path, detections: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The same figures, by pycocotools; `kind` is bbox or segm."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with redirect_stdout(sys.stderr):
        truth = COCO(str(annotations))
        if not detections:
            present = {a["category_id"] for a in truth.anns.values() if not a.get("iscrowd", 0)}
            return _figures({c: [0.0] * len(IOU_THRESHOLDS) for c in present})
        evaluation = COCOeval(truth, truth.loadRes(detections), kind)
        evaluation.evaluate()
        evaluation.accumulate()
    # [IoU threshold, recall, class, size of the object, number of detections]; -1 for a class without objects.
    precision = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=1)
    classes = evaluation.params.catIds
    return _figures({c: precision[:, k].tolist() for k, c in enumerate(classes) if precision[0, k] >= 0})


def evaluator() -> str:
    """Who evaluates here, in words."""
    return f"pycocotools {version('pycocotools')}" if find_spec("pycocotools") else AveragePrecision.name


def main() -> None:
    """Read the command line and print the figures of boxes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("detections", type=Path)
    arguments = parser.parse_args()
    truth, detections = (json.loads(path.read_text()) for path in (arguments.annotations, arguments.detections))
    print(f"evaluated with {evaluator()}", file=sys.stderr)
    if evaluator() != AveragePrecision.name:
        print(json.dumps(with_pycocotools(arguments.annotations, detections, "bbox"), indent=1))
        return
    found, objects = defaultdict(list), defaultdict(list)
    for one in detections:
        found[one["image_id"]].append(one)
    for one in truth["annotations"]:
        objects[one["image_id"]].append(one)
    counted = AveragePrecision()
    for image in truth["images"]:
        mine, theirs = found[image["id"]], objects[image["id"]]
        boxes = [np.array([one["bbox"] for one in side], float).reshape(-1, 4) for side in (mine, theirs)]
        for each in boxes:
            each[:, 2:] += each[:, :2]
        counted.add(
            np.array([one["score"] for one in mine]), np.array([one["category_id"] for one in mine], int), boxes[0],
            boxes[1], np.array([one["category_id"] for one in theirs], int),
            np.array([one.get("iscrowd", 0) for one in theirs], bool),
        )  # fmt: skip
    print(json.dumps(counted.result(), indent=1))


if __name__ == "__main__":
    main()
