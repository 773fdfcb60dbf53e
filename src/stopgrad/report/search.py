"""Pages of what a search found: queries with their nearest images, and groups of near-duplicates."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stopgrad.data.decode import decode
from stopgrad.data.pixels import RGB8, UnreadableImageError
from stopgrad.loader.preprocess import shown_of
from stopgrad.report.listed import Listed
from stopgrad.report.page import picture, write_page
from stopgrad.retrieval.database import Bank
from stopgrad.retrieval.duplicates import Duplicates
from stopgrad.retrieval.query import Answer, SearchResult

MOST_QUERIES = 50
MOST_GROUPS = 50
MOST_MEMBERS = 24
TILE, LARGE = 148, 280
"""Longest side, in pixels, of a neighbour's and of a query's picture."""
SMALL = 64
"""Images up to this are shown enlarged, each of their pixels a square."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture on the page."""

    uri: str | None
    """As a data URI; None where the image cannot be had."""
    name: str
    """In full."""
    short: str
    label: str | None = None
    caption: str = ""
    mark: str = ""
    """What is special about it, in a word."""
    pixels: bool = False
    """Whether it is so small that its pixels should be seen."""
    number: int | None = None
    """Among the images that can be picked on the page; None where none can."""


@dataclass(frozen=True)
class Section:
    """A query with its answer, or a group."""

    title: str
    about: str
    query: Thumbnail | None
    tiles: Sequence[Thumbnail]
    more: int
    """Images that are not shown."""


def write_search_page(result: SearchResult, out: Path) -> None:
    """Write the page of a search: each query with its neighbours in order."""
    shown = [_section_of(result, i) for i in range(min(len(result.answers), MOST_QUERIES))]
    num = len(result.answers)
    about = f"{result.num_images:,} images of {result.data}, by cosine of the features of {result.encoder}"
    _write(out, "Nearest images", about, shown, num, "queries", None, result.skipped)


def write_duplicates_page(found: Duplicates, out: Path) -> None:
    """Write the page of near-duplicates: the groups, largest first."""
    sections = group_sections(found, MOST_GROUPS, MOST_MEMBERS)
    _write(
        out, "Near-duplicates", groups_words(found), sections, len(found.groups), "groups", found.warning, found.skipped
    )  # fmt: skip


def group_sections(
    found: Duplicates, most_groups: int, most_members: int, listed: Listed | None = None
) -> list[Section]:  # fmt: skip
    """The groups with their pictures, largest first, so many of them and so many images of each.

    Args:
        found: the groups.
        most_groups, most_members: bounds.
        listed: the page's images, to be picked; None: without picking.
    """
    shown = []
    for number, group in enumerate(found.groups[:most_groups], start=1):
        tiles = []
        for member in group[:most_members]:
            label = int(found.bank.labels[member.row])
            listed_as = None if listed is None else listed.number(member.name, label, member.split)
            copy = "copy" * bool(member.copy_of)
            cosine = f"{member.cosine:.4f}"
            tiles.append(_tile(found.bank, member.row, member.name, member.label, cosine, copy, listed_as))
        copies = sum(member.copy_of is not None for member in group)
        about = f"{len(group):,} images" + (
            f", {copies} of them {'copies' if copies > 1 else 'a copy'}, byte for byte" if copies else ""
        )
        if {"train", "test"} <= {member.split for member in group}:
            about += "; training and test images both"
        labels = {member.label for member in group} - {None}
        if len(labels) > 1:
            about += f"; of {len(labels)} classes: {', '.join(sorted(map(str, labels)))}"
        shown.append(Section(f"Group {number}", about, None, tiles, len(group) - len(tiles)))
    return shown


def groups_words(found: Duplicates) -> str:
    """How many groups there are, of what, and what joins them."""
    words = (
        f"{found.num_grouped:,} of {found.num_images:,} images of {found.data} in {len(found.groups):,} groups, joined "
        f"by a cosine of at least {found.threshold:g} of the features of {found.encoder}. Under each: its cosine with "
        "the group's first."
    )
    if found.num_unseen:
        words += (
            f" {found.num_unseen:,} of them are no longer available: byte-for-byte copies were not looked for there."
        )
    return words


def _write(
    out: Path, title: str, about: str, sections: Sequence[Section], num: int, what: str, warning: str | None,
    skipped: Sequence[Any],
) -> None:  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    note = f"The first {len(sections)} of {num:,} {what}; all of them with --json." if num > len(sections) else ""
    write_page(
        out, "search.html", title=title, about=about, sections=sections, note=note, warning=warning, skipped=skipped,
        grouped=what == "groups", nothing=f"There are no {what}.", tile=TILE, large=LARGE,
    )  # fmt: skip


def _section_of(result: SearchResult, number: int) -> Section:
    answer = result.answers[number]
    tiles = [
        _tile(result.bank, hit.row, hit.name, hit.label, f"{hit.rank} · {hit.cosine:.3f}", "copy" * hit.copy)
        for hit in answer.hits
    ]
    uri, pixels = _shown(lambda: result.queries.read(result.places[number]), LARGE, result.bank)
    query = Thumbnail(uri, answer.query, os.path.basename(answer.query) or answer.query, pixels=pixels)
    return Section(query.short, _about(answer), query, tiles, 0)


def _about(answer: Answer) -> str:
    """The classes of what was found, and what became of the query itself."""
    labels = Counter(hit.label for hit in answer.hits if hit.label is not None)
    words = [", ".join(f"{label} {num}" for label, num in labels.most_common())] if labels else []
    if answer.left_out is not None:
        words.append("the query is among the images and was left out")
    return "; ".join(words)


def _tile(
    bank: Bank, row: int, name: str, label: str | None, caption: str, mark: str, number: int | None = None
) -> Thumbnail:  # fmt: skip
    uri, pixels = _shown(lambda: bank.read(row), TILE, bank)
    return Thumbnail(uri, name, os.path.basename(name) or name, label, caption, mark, pixels, number)


def _shown(read: Any, side: int, bank: Bank) -> tuple[str | None, bool]:
    """The picture of an image, upright, and whether it is to be enlarged."""
    p = bank.preprocess
    try:
        # Twice the side: sharp on dense screens too.
        pixels = decode(read(), shortest=2 * side, pixels=RGB8 if p is None else p.pixels)
        image = Image.fromarray(pixels if p is None else shown_of(p).picture(pixels))
    except (OSError, UnreadableImageError):
        return None, False
    return picture(image, 2 * side, quality=90 if max(image.size) <= SMALL else 75), max(image.size) <= SMALL
