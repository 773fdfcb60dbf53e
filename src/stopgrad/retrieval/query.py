"""The images of a data set that look most like a given one."""

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stopgrad.data.pixels import UnreadableImageError
from stopgrad.data.python import as_source
from stopgrad.data.readers.raw import read_raw
from stopgrad.data.sources import ImageSource
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.features import Features, features_of
from stopgrad.errors import ConfigError, DataError, did_you_mean
from stopgrad.reporter import QuietReporter, Reporter
from stopgrad.retrieval.database import Bank, open_bank, query_encoder
from stopgrad.retrieval.index import INDEXES, nearest, need_faiss

# Above this, two images may be the same file twice, which is looked up.
ALIKE = 0.9999


@dataclass(frozen=True)
class Hit:
    """One image that was found."""

    rank: int
    cosine: float
    name: str
    label: str | None
    """Name of its class, if known."""
    row: int
    """Its place in the bank."""
    copy: bool = False
    """Whether its file has the same bytes as the query's."""


@dataclass(frozen=True)
class Answer:
    """What was found for one query."""

    query: str
    hits: Sequence[Hit]
    left_out: str | None = None
    """The query itself, where it is among the images searched."""


@dataclass(frozen=True)
class SearchResult:
    """Answers in the order of the queries."""

    encoder: str
    data: str
    num_images: int
    """Images searched."""
    index: str
    answers: Sequence[Answer]
    bank: Bank
    queries: ImageSource
    """The query images, those that could not be read among them."""
    places: Sequence[int]
    """Answer -> index in `queries`."""
    skipped: Sequence[dict[str, Any]]
    """Images and queries that could not be read: `name` and `reason`."""
    seconds: float
    search_seconds: float
    """Of the search alone, without embedding."""

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        plain = ("encoder", "data", "num_images", "index", "seconds", "search_seconds")
        return {
            **{name: getattr(self, name) for name in plain}, "precision": self.bank.precision,
            "skipped": list(self.skipped),
            "answers": [asdict(answer) for answer in self.answers],
        }  # fmt: skip


def search(
    run_or_embeddings: str | Path | Encoder, query: Any, *, data: Any = None, top: int = 20, index: str = "exact",
    split: str | None = None, encoder: str | Path | Encoder | None = None, batch_size: int = 0, device: str = "auto",
    precision: str = "auto", keep: bool = True, reporter: Reporter | None = None,
) -> SearchResult:  # fmt: skip
    """Find the images nearest to a query by the cosine of their features.

    Args:
        run_or_embeddings: what `load_encoder` takes, an encoder, or a file that `embed_to_file` wrote.
        query: an image file, a folder of images, or anything else that `Encoder.embed` takes; each image is a query.
            A query whose file is among the images searched is left out of its own answer.
        data: images to search; None: those that the run was trained on, or that the file was made of.
        top: how many to find.
        index: `exact`: matrix products in bounded memory; `faiss`: its flat index, exact too.
        split: `train`, `test` or `all` of a data set with splits; None: its training images, or all of a file.
        encoder: for a file of embeddings, what embeds the query; None: the encoder that the file names.
        batch_size: images a forward pass; 0: chosen for the device.
        device: as the setting `device`.
        precision: what the network computes in, as the setting `precision`; with a file of embeddings `auto` is what
            the file was made in.
        keep: whether embeddings of a run's encoder are kept in the run folder (`embeddings/`) for the next search.
        reporter: told of progress.

    Raises:
        ConfigError: `top` out of range, faiss not installed, or another encoder or precision than that of the
            embeddings.
        DataError: the query is no image, or holds none; or nothing to search.
        CheckpointError: no encoder there.
    """
    began, reporter = time.perf_counter(), reporter or QuietReporter()
    if top < 1:
        raise ConfigError(f"top = {top}: must be at least 1.")
    if index not in INDEXES:
        raise ConfigError(f"index = {index!r} is unknown: {did_you_mean(index, INDEXES)}")
    if index == "faiss":
        need_faiss()
    queries = _open_query(query)
    bank, loaded = open_bank(
        run_or_embeddings, data, split, batch_size=batch_size, device=device, precision=precision, keep=keep,
        reporter=reporter,
    )  # fmt: skip
    if loaded is None:
        loaded = query_encoder(bank, encoder)
        bank = replace(bank, preprocess=loaded.preprocess)
    elif encoder is not None:
        reporter.warn(f"encoder = {encoder} has no effect: {loaded.name} embeds the query too.")
    features = _embed_queries(loaded, queries, batch_size, device, bank.precision, reporter)
    places = features.positions
    own = _own_rows(bank, [queries.name(i) for i in places])
    most = len(bank) - int(bool((own >= 0).any()))
    if top > most:
        itself = " beside the query itself" if most < len(bank) else ""
        raise ConfigError(f"top = {top}: there are {most:,} images to find{itself}.")
    search_began = time.perf_counter()
    cosines, rows = nearest(bank.vectors, features.vectors, top, own, index)
    search_seconds = time.perf_counter() - search_began
    answers = []
    for i, place in enumerate(places):
        found = enumerate(zip(cosines[i].tolist(), rows[i].tolist(), strict=True), start=1)
        hits = [
            Hit(rank, cosine, bank.names[row], bank.label(row), row, _is_copy(bank, row, cosine, queries, place))
            for rank, (cosine, row) in found
        ]
        answers.append(Answer(features.names[i], hits, bank.names[int(own[i])] if own[i] >= 0 else None))
    skipped = [*bank.skipped, *({"name": n, "reason": r} for n, r in features.skipped.items())]
    return SearchResult(loaded.name, bank.data, len(bank), index, answers, bank, queries, places, skipped,
                        round(time.perf_counter() - began, 2), round(search_seconds, 4))  # fmt: skip


def _open_query(query: Any) -> ImageSource:
    if isinstance(query, (str, Path)) and not Path(query).expanduser().exists():
        raise DataError(f"the query {str(query)!r} does not exist: give an image file or a folder of images.")
    source = as_source(query)
    if len(source) == 0:
        raise DataError("the query holds no images.")
    if len(source) == 1:
        # Before the images to search are embedded, which may take long.
        try:
            read_raw(source.read(0))
        except (UnreadableImageError, OSError) as error:
            raise DataError(
                f"the query {source.name(0)} cannot be read: {error}.", topic="unreadable-images"
            ) from error
    return source


def _embed_queries(
    encoder: Encoder, queries: ImageSource, batch_size: int, device: str, precision: str, reporter: Reporter
) -> Features:
    backbone, place = encoder.placed(device)
    return features_of(
        backbone, encoder.preprocess, queries, place, batch_size=batch_size, strict=len(queries) == 1,
        precision=precision,
        progress=lambda done, total: reporter.progress("embedding queries", done, total),
    )  # fmt: skip


def _own_rows(bank: Bank, queries: Sequence[str]) -> torch.Tensor:
    """The row of each query whose file is in the bank, else -1."""
    # Several queries may be one file: given twice, or by a link too.
    files: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(queries):
        if os.path.isfile(name):
            files[os.path.realpath(name)].append(i)
    own = torch.full((len(queries),), -1)
    # Following links takes time: only for names that can be meant.
    likely = {os.path.basename(file) for file in files} | {os.path.basename(name) for name in queries}
    for row in range(len(bank)) if files else ():
        name = bank.file(row)
        if os.path.basename(name) in likely:
            own[files.get(os.path.realpath(name), [])] = row
    return own


def _is_copy(bank: Bank, row: int, cosine: float, queries: ImageSource, place: int) -> bool:
    if cosine < ALIKE:
        return False
    try:
        first, second = bank.read(row), queries.read(place)
    except OSError:
        return False
    return isinstance(first, bytes) and isinstance(second, bytes) and first == second
