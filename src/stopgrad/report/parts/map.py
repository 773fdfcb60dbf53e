"""The map of the features: a point an image, with its thumbnail, coloured by class or cluster."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from stopgrad.data.decode import evenly_spaced
from stopgrad.report.listed import Listed
from stopgrad.report.page import picture
from stopgrad.report.parts.images import RunImages, Sample
from stopgrad.report.parts.layout import clusters, layout_2d
from stopgrad.report.parts.neighbours import as_pixels

# Paul Tol, "Colour schemes" (2021), muted: distinguishable for colour-blind readers; the last for what has no class.
COLOURS = ("#332288", "#cc6677", "#117733", "#88ccee", "#ddaa33", "#882255", "#44aa99", "#aa4499", "#999933", "#6e6e6e")
NONE_COLOUR = "#b8bcc4"
RIGHT, WRONG = "#0072b2", "#d55e00"
SPRITE_BYTES, SPRITE_BYTES_OF_MANY = 3_000_000, 2_000_000
"""Most that the thumbnails may take before base64: pages stay below 8 MB, and with 100,000 points, below 10."""
MOST_PICTURES = 10_000
"""Points with a thumbnail; of more, so many have one, evenly spaced."""
_ATTEMPTS = ((64, 70), (48, 65), (32, 70), (32, 50), (24, 50), (16, 40))


def feature_map(
    images: RunImages, samples: Sequence[tuple[str, Sample]], num: int, predicted: Int[Tensor, "image"] | None,
    listed: Listed | None = None,
) -> tuple[dict[str, Any] | None, str]:  # fmt: skip
    """The map as plain data for templates/map.js, or why there is none.

    Args:
        images: for the classes' names.
        samples: (what they are, images): drawn from in this order until there are `num` points, evenly.
        num: most points.
        predicted: k-NN classes of the first sample's images, where there are labels; -1 where not judged.
        listed: the page's images, none of them yet: points come first, and a point's number is its image's.
    """
    parts: list[tuple[str, Sample]] = []
    for what, sample in samples:
        taken = min(len(sample), num - sum(len(part) for _, part in parts))
        if taken > 0:
            parts.append((what, sample.evenly_spaced(taken)))
    features = torch.cat([part.features for _, part in parts])
    if not bool(features.isfinite().all()):
        return None, "There is no map: some features are no finite numbers."
    placed = layout_2d(features)
    if placed is None:
        return None, "There is no map: all images shown get nearly the same features."
    places, how = placed
    labels = torch.cat([part.labels for _, part in parts])
    thumbnails = torch.cat([part.thumbnails for _, part in parts])
    found, nearest = clusters(features)
    said = torch.full((len(features),), -1)
    if predicted is not None:
        said[: len(parts[0][1])] = predicted[evenly_spaced(len(predicted), len(parts[0][1]))]
    span = max(float(np.ptp(places, axis=0).max()), 1e-9)
    scaled = np.round((places - places.min(axis=0)) / span * 10_000).astype(int)
    pictured = evenly_spaced(len(features), MOST_PICTURES)
    is_whole = len(pictured) == len(features)
    sprite, side, columns = sprite_sheet(
        thumbnails if is_whole else thumbnails[pictured], SPRITE_BYTES if is_whole else SPRITE_BYTES_OF_MANY
    )
    if listed is not None:
        for what, part in parts:
            for position, label in zip(part.positions, part.labels.tolist(), strict=True):
                listed.number(part.store.name(position), label, what)
    from_where = " and ".join(f"{len(part):,} of {len(part.store):,} {what} images" for what, part in parts)
    data = {
        "x": scaled[:, 0].tolist(), "y": scaled[:, 1].tolist(),
        "sets": [what for what, _ in parts], "counts": [len(part) for _, part in parts],
        "sprite": sprite, "side": side, "columns": columns,
        "pictured": None if is_whole else pictured,
        "label": labels.tolist(), "predicted": said.tolist(),
        "colourings": colourings(images.class_names, labels, said, found),
    }  # fmt: skip
    names = [name for _, part in parts for name in part.names]
    exemplars = [
        {"size": int((found == number).sum()), "classes": _most(images.class_names, labels[found == number]),
         "pictures": [{"uri": picture(as_pixels(thumbnails[i]), 64), "name": names[i], "number": i} for i in members]}
        for number, members in enumerate(nearest)
    ]  # fmt: skip
    drawn = any(len(part) + len(part.store.skipped) < len(part.store) for _, part in parts)
    words = f"{len(features):,} points: {from_where.replace('  ', ' ')}{', drawn by seed' * drawn}; {how}."
    if not is_whole:
        words += f" {len(pictured):,} of them, evenly spaced, have a picture here."
    labelled = bool(images.class_names) and bool((labels >= 0).any())
    pixelated = thumbnails.shape[-1] < 48
    return {"data": data, "exemplars": exemplars, "pixelated": pixelated, "labelled": labelled}, words


def _most(class_names: Sequence[str], labels: Int[Tensor, "image"]) -> str:
    """The three commonest classes of some images, with how many there are of each."""
    counts = torch.bincount(labels[labels >= 0], minlength=len(class_names))
    order = counts.argsort(descending=True, stable=True)[:3].tolist()
    return ", ".join(f"{class_names[i]} {int(counts[i]):,}" for i in order if counts[i]) if class_names else ""


def colourings(
    class_names: Sequence[str], labels: Int[Tensor, "image"], predicted: Int[Tensor, "image"],
    found: Int[Tensor, "image"],
) -> list[dict[str, Any]]:  # fmt: skip
    """The ways to colour the points, the usual one first: groups by name, colour and shape, and each point's group."""
    ways = []
    if class_names and bool((labels >= 0).any()):
        ways.append(_colouring("class", class_names, labels))
        if bool((predicted >= 0).any()):
            judged = torch.where(predicted < 0, -1, (predicted != labels).long())
            judged[labels < 0] = -1
            way = _colouring("k-NN right or wrong", ("right", "wrong"), judged)
            for group, colour in zip(way["groups"], (RIGHT, WRONG), strict=False):
                group["colour"] = colour
            ways.append(way)
    names = [f"cluster {number + 1}" for number in range(int(found.max()) + 1)]
    ways.append(_colouring("cluster", names, found))
    return ways


def _colouring(name: str, names: Sequence[str], group: Int[Tensor, "image"]) -> dict[str, Any]:
    counts = torch.bincount(group.clamp(min=-1) + 1, minlength=len(names) + 1).tolist()
    groups = [
        {"name": str(names[i]), "count": counts[i + 1], "colour": COLOURS[i % len(COLOURS)],
         "shape": (i + i // len(COLOURS)) % 4}
        for i in range(len(names))
    ]  # fmt: skip
    # What belongs to no group stands last.
    if counts[0]:
        groups.append({"name": "none", "count": counts[0], "colour": NONE_COLOUR, "shape": 0})
    return {"name": name, "groups": groups, "group": torch.where(group < 0, len(names), group).tolist()}


def sprite_sheet(
    thumbnails: UInt8[Tensor, "image 3 side side"], most_bytes: int = SPRITE_BYTES
) -> tuple[str, int, int]:  # fmt: skip
    """All thumbnails in one picture: (data URI, side of one, number in a row), as sharp as so many bytes allow."""
    columns = int(np.ceil(np.sqrt(len(thumbnails))))
    rows = -(-len(thumbnails) // columns)
    side = thumbnails.shape[-1]
    sheet = np.zeros((rows, columns, 3, side, side), dtype=np.uint8)
    sheet.reshape(-1, 3, side, side)[: len(thumbnails)] = thumbnails.numpy()
    whole = Image.fromarray(sheet.transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3))
    encoded = b""
    for wanted, quality in _ATTEMPTS:
        # A picture of WebP is at most 16,383 pixels wide.
        reduced = min(side, wanted, 16_000 // columns)
        smaller = whole if reduced == side else whole.resize((columns * reduced, rows * reduced), Image.Resampling.BOX)
        buffer = io.BytesIO()
        smaller.save(buffer, "WEBP", quality=quality, method=2)
        encoded = buffer.getvalue()
        if len(encoded) <= most_bytes:
            break
    return "data:image/webp;base64," + base64.b64encode(encoded).decode(), reduced, columns
