"""Groups of images that are nearly the same."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import ConfigError
from stopgrad.reporter import QuietReporter, Reporter
from stopgrad.retrieval.database import Bank, open_bank

# Cosines of equal images differ from 1 by rounding.
TOLERANCE = 1e-5
TILE = 1024
# Pairs; a tile may add TILE x TILE at most.
MOST_WAITING = 2**18
LARGE_SHARE = 0.1
FEW = 10


@dataclass(frozen=True)
class Member:
    """An image of a group."""

    name: str
    label: str | None
    row: int
    cosine: float
    """With the group's first image."""
    split: str | None = None
    """`train` or `test`, if known."""
    copy_of: str | None = None
    """The first image of the group whose file has the same bytes."""


@dataclass(frozen=True)
class Duplicates:
    """Groups, largest first."""

    encoder: str
    data: str
    num_images: int
    threshold: float
    groups: Sequence[Sequence[Member]]
    bank: Bank
    skipped: Sequence[dict[str, Any]]
    seconds: float
    search_seconds: float
    """Of the comparison alone, without embedding."""
    num_unseen: int = 0
    """Images of groups that are no longer available, so that nothing is known of their bytes."""

    @property
    def num_grouped(self) -> int:
        """Images in a group."""
        return sum(len(group) for group in self.groups)

    @property
    def num_copies(self) -> int:
        """Images whose file has the same bytes as another's."""
        return sum(member.copy_of is not None for group in self.groups for member in group)

    @property
    def num_across(self) -> int:
        """Groups with both training and test images: what is learnt of one is known of the other."""
        return sum({"train", "test"} <= {member.split for member in group} for group in self.groups)

    @property
    def warning(self) -> str | None:
        """What to make of a group that is too large to be one of duplicates; None if there is none."""
        largest = max((len(group) for group in self.groups), default=0)
        if largest <= max(FEW, LARGE_SHARE * self.num_images):
            return None
        higher = (
            f"a higher threshold, such as {(1 + self.threshold) / 2:.4g}" if self.threshold < 1 else "other features"
        )
        return (
            f"one group holds {largest:,} of {self.num_images:,} images ({largest / self.num_images:.0%}): at cosine "
            f"{self.threshold:g} these features tell few images apart. Try {higher}; if that does not help, the "
            "encoder is weak or collapsed."
        )

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        plain = (
            "encoder", "data", "num_images", "threshold", "num_grouped", "num_copies", "num_unseen", "num_across",
            "warning", "seconds", "search_seconds",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in plain}, "precision": self.bank.precision,
            "skipped": list(self.skipped),
            "groups": [[asdict(member) for member in group] for group in self.groups],
        }  # fmt: skip


def find_duplicates(
    run_or_embeddings: str | Path | Encoder, *, threshold: float = 0.95, data: Any = None, split: str | None = None,
    batch_size: int = 0, device: str = "auto", precision: str = "auto", keep: bool = True,
    reporter: Reporter | None = None,
) -> Duplicates:  # fmt: skip
    """Find groups of near-duplicates: images joined by pairs whose features have at least a given cosine.

    In a group each image is near to some other, not necessarily to all. Of files, those with the same bytes are told.

    Args:
        run_or_embeddings: what `load_encoder` takes, an encoder, or a file that `embed_to_file` wrote.
        threshold: the cosine, above 0 and at most 1. Small encoders need a higher one than the default, such as 0.995.
        data, split, batch_size, device, precision, keep, reporter: as for `search`; with `split="all"`, test images
            that are among the training images are found.

    Raises:
        ConfigError: a threshold out of range.
        DataError, CheckpointError: nothing there that can be used.
    """
    began, reporter = time.perf_counter(), reporter or QuietReporter()
    check_threshold(threshold)
    bank, _ = open_bank(
        run_or_embeddings, data, split, batch_size=batch_size, device=device, precision=precision, keep=keep,
        reporter=reporter,
    )  # fmt: skip
    return replace(duplicates_in(bank, threshold, reporter), seconds=round(time.perf_counter() - began, 2))


def duplicates_in(bank: Bank, threshold: float, reporter: Reporter) -> Duplicates:
    """As `find_duplicates`, of images that are embedded already; `seconds` are those of the comparison."""
    began = time.perf_counter()
    labels = joined(bank.vectors, threshold, reporter)
    search_seconds = time.perf_counter() - began
    members = _members(labels)
    digests = {row: _bytes_digest(bank, row) for rows in members for row in rows.tolist()}
    groups = [_group(bank, rows, digests) for rows in members]
    return Duplicates(
        bank.encoder, bank.data, len(bank), threshold, groups, bank, bank.skipped,
        round(time.perf_counter() - began, 2), round(search_seconds, 4), list(digests.values()).count(None),
    )  # fmt: skip


def check_threshold(threshold: float) -> None:
    """Raise `ConfigError` for a cosine that is not above 0 and at most 1."""
    if not 0 < threshold <= 1:
        raise ConfigError(f"duplicates = {threshold}: the cosine must be above 0 and at most 1.")


def joined(vectors: Float[Tensor, "row dim"], threshold: float, reporter: Reporter | None = None) -> np.ndarray:
    """Connected components of the rows, two rows being joined by a cosine of at least `threshold`.

    Compared tile by tile, and joined as they come: beside the vectors, memory is that of a tile and a few numbers a
    row, however many pairs there are.

    Returns:
        int `[row]`, equal within a component.
    """
    num = len(vectors)
    component = torch.arange(num)
    waiting: list[Tensor] = []
    along = -(-num // TILE)
    tiles = ((a, b) for a in range(0, num, TILE) for b in range(a, num, TILE))
    for done, (first, second) in enumerate(tiles, start=1):
        if first == second:
            left = F.normalize(vectors[first : first + TILE].float(), dim=1)
        rows, columns = slice(first, first + TILE), slice(second, second + TILE)
        # Those joined already need no pair more: of features that are all alike this leaves next to nothing to do.
        apart = component[rows, None] != component[columns]
        if apart.any():
            near = (left @ F.normalize(vectors[columns].float(), dim=1).T >= threshold - TOLERANCE) & apart
            waiting.append(near.nonzero() + torch.tensor((first, second)))
        if sum(map(len, waiting)) > MOST_WAITING:
            component, waiting = _merged(component, waiting), []
        if reporter is not None:
            reporter.progress("comparing", done, along * (along + 1) // 2)
    return (_merged(component, waiting) if waiting else component).numpy()


def _merged(component: Tensor, pairs: list[Tensor]) -> Tensor:
    """Components, with those that pairs of rows link made one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b = component[torch.cat(pairs)].T.numpy()
    links = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(component),) * 2)
    return torch.from_numpy(connected_components(links, directed=False)[1]).long()[component]


def _members(component: np.ndarray) -> list[np.ndarray]:
    """Rows of each component of at least two, the largest first."""
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order])) + 1
    groups = [rows for rows in np.split(order, starts) if len(rows) > 1]
    return sorted(groups, key=lambda rows: (-len(rows), rows[0]))


def _group(bank: Bank, rows: np.ndarray, digests: Mapping[int, str | None]) -> list[Member]:
    vectors = F.normalize(bank.vectors[torch.from_numpy(rows)].float(), dim=1)
    cosines = (vectors @ vectors[0]).tolist()
    copies = _copies(bank, rows, digests)
    return [
        Member(bank.names[row], bank.label(row), int(row), min(1.0, cosine), bank.split(row), copies.get(row))
        for row, cosine in zip(rows.tolist(), cosines, strict=True)
    ]


def _copies(bank: Bank, rows: np.ndarray, digests: Mapping[int, str | None]) -> dict[int, str]:
    """Row -> name of the first image with the same bytes, of those that are not the first."""
    same: dict[str, list[int]] = defaultdict(list)
    for row in rows.tolist():
        if (digest := digests[row]) is not None:
            same[digest].append(row)
    return {row: bank.names[rows_[0]] for rows_ in same.values() for row in rows_[1:]}


def _bytes_digest(bank: Bank, row: int) -> str | None:
    """Of an image's file, or of its pixels in memory; None where it is not available."""
    try:
        data = bank.read(row)
    except OSError:
        return None
    return hashlib.sha256(data if isinstance(data, bytes) else np.asarray(data).tobytes()).hexdigest()
