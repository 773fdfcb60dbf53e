"""Nearest neighbours of some images, by features and by raw pixels."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from stopgrad.metrics.accuracy import knn_predict_each
from stopgrad.metrics.neighbours import nearest_neighbours
from stopgrad.report.listed import Listed
from stopgrad.report.page import picture
from stopgrad.report.parts.images import RunImages, Sample

NUM_QUERIES, NUM_NEIGHBOURS = 10, 8
MAX_QUERIES = 1000
"""Images whose neighbours are counted; the few shown are drawn from them."""
SHOWN_SIDE = 112


def neighbour_rows(
    images: RunImages,
    queries: Sample,
    bank: Sample,
    *,
    seed: int,
    head: str = "Trained features",
    listed: Listed | None = None,
) -> dict[str, Any] | None:
    """Some images, drawn by a seed, each with the nearest of the bank; None for a bank of too few.

    Args:
        images: for the classes' names.
        queries: those that ask; the bank itself where there are no others, and then none finds itself.
        bank: the training images.
        seed: of the draw.
        head: what the features are.
        listed: the page's images, to be picked.
    """
    alone = queries is bank
    k = min(NUM_NEIGHBOURS, len(bank) - alone)
    if k < 1:
        return None
    generator = np.random.Generator(np.random.PCG64([seed, 2**35]))
    asked = torch.from_numpy(np.sort(generator.permutation(len(queries))[:MAX_QUERIES]))
    chosen = torch.from_numpy(np.sort(generator.permutation(len(asked))[:NUM_QUERIES]))
    pixels = bank.pixels
    mean = pixels.mean(dim=0)
    pixels -= mean
    asking_pixels = pixels if alone else queries.pixels - mean
    found, shares = [], []
    for name, ours, theirs in (
        (head, queries.features, bank.features),
        ("Raw pixels", asking_pixels, pixels),
    ):
        cosines, places = nearest_neighbours(theirs, ours[asked], k, own=asked if alone else None)
        found.append((name, cosines[chosen], places[chosen]))
        shares.append(_share(places, queries.labels[asked], bank.labels))
    listed = Listed(images.class_names) if listed is None else listed
    shown = _Shown(bank, images.train_name, listed)
    tested = shown if alone else _Shown(queries, images.test_name, listed)
    rows = []
    for row, query in enumerate(asked[chosen].tolist()):
        label = int(queries.labels[query])
        rows.append({
            "picture": tested.picture(query), "name": tested.names[query], "label": _class(images, label),
            "number": tested.number(query),
            "sides": [
                [
                    shown.neighbour(place, cosine, label, images)
                    for cosine, place in zip(cosines[row].tolist(), places[row].tolist(), strict=True)
                ]
                for _, cosines, places in found
            ],
        })  # fmt: skip
    return {
        "rows": rows, "heads": [name for name, _, _ in found], "shares": shares, "k": k,
        "pixelated": 2 * bank.thumbnails.shape[-1] < SHOWN_SIDE,
        "num_queries": len(asked), "num_bank": len(bank), "of": len(bank.store),
        "queries": images.train_name if alone else images.test_name, "bank": images.train_name,
        "pixel_side": min(32, bank.thumbnails.shape[-1]),
    }  # fmt: skip


def _share(places: Int[Tensor, "query k"], labels: Int[Tensor, "query"], bank: Int[Tensor, "bank"]) -> float | None:
    """Share in % of the neighbours that are of the query's class; None without labels."""
    asked, said = labels[:, None].expand_as(places), bank[places]
    known = (asked >= 0) & (said >= 0)
    return float((asked == said)[known].float().mean() * 100) if known.any() else None


def _class(images: RunImages, label: int) -> str:
    return str(images.class_names[label]) if 0 <= label < len(images.class_names) else ""


class _Shown:
    """Pictures of a sample's images, each made once."""

    def __init__(self, sample: Sample, part: str, listed: Listed) -> None:
        self.sample, self.names, self.part, self.listed = sample, sample.names, part, listed
        self._made: dict[int, str] = {}

    def neighbour(self, place: int, cosine: float, asked: int, images: RunImages) -> dict[str, Any]:
        """What the page says of a neighbour; `same` is None where a label is missing."""
        label = int(self.sample.labels[place])
        same = None if min(asked, label) < 0 else asked == label
        return {"picture": self.picture(place), "cosine": cosine, "label": _class(images, label), "same": same,
                "name": self.names[place], "number": self.number(place)}  # fmt: skip

    def number(self, place: int) -> int:
        """The image's number on the page."""
        name = self.sample.store.name(self.sample.positions[place])
        return self.listed.number(name, int(self.sample.labels[place]), self.part)

    def picture(self, place: int) -> str:
        """A data URI, in the image's own proportions."""
        if place not in self._made:
            pixels = self.sample.store.pixels(self.sample.positions[place])
            if pixels is None:
                pixels = as_pixels(self.sample.thumbnails[place])
            else:
                pixels = self.sample.shown.picture(pixels)
            self._made[place] = picture(np.ascontiguousarray(pixels), SHOWN_SIDE)
        return self._made[place]


def as_pixels(thumbnail: UInt8[Tensor, "3 _ _"]) -> np.ndarray:
    """uint8 `[height, width, 3]`."""
    return np.ascontiguousarray(thumbnail.permute(1, 2, 0).numpy())


def voted(
    images: RunImages, queries: Sample, bank: Sample, *, k: int, temperature: float
) -> tuple[Int[Tensor, "query"], int] | None:
    """k-NN classes of all queries, -1 for those without a label, and k; None without labels to learn or judge by.

    Args:
        images: for the classes.
        queries: those that ask; the bank itself where there are no others, and then none asks itself.
        bank: those that vote, where they have a label.
        k: most neighbours.
        temperature: of the votes' weights.
    """
    known, judged = bank.labels >= 0, queries.labels >= 0
    alone = queries is bank
    if not images.class_names or int(known.sum()) <= alone or not judged.any():
        return None
    k = min(k, int(known.sum()) - alone)
    own = torch.cumsum(known, 0)[judged] - 1 if alone else None
    said = torch.full((len(queries),), -1)
    said[judged] = knn_predict_each(
        bank.features[known], bank.labels[known], queries.features[judged], ks=[k], temperature=temperature,
        num_classes=len(images.class_names), own=own,
    )[k]  # fmt: skip
    return said, k
