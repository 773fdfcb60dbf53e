"""Nearest rows of a bank by cosine: exact, by matrix products here or by faiss."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.metrics.neighbours import nearest_neighbours

INDEXES = ("exact", "faiss")


def nearest(
    bank: Float[Tensor, "row dim"], queries: Float[Tensor, "query dim"], k: int, own: Int[Tensor, "query"],
    index: str = "exact",
) -> tuple[Float[Tensor, "query k"], Int[Tensor, "query k"]]:  # fmt: skip
    """Cosines, largest first, and rows.

    Args:
        bank, queries: features of any scale.
        k: neighbours, at most as many as the bank has without the query itself.
        own: the row that each query is itself, which is left out; -1 where it is not in the bank.
        index: `exact`, or `faiss` for faiss' flat index, which is exact too.

    Raises:
        ConfigError: no such index, or faiss is not installed.
    """
    if index not in INDEXES:
        raise ConfigError(f"index = {index!r} is unknown: {did_you_mean(index, INDEXES)}")
    if index == "exact":
        inside = own >= 0
        return nearest_neighbours(bank, queries, k, own=own if inside.any() else None)
    return _by_faiss(bank, queries, k, own)


def need_faiss() -> None:
    """Raise `ConfigError` if faiss is not installed."""
    try:
        import faiss  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "index = 'faiss' needs faiss-cpu, which is not installed: pip install \"stopgrad[faiss]\"; or use exact.",
            topic="missing-package",
        ) from error


def _by_faiss(bank: Tensor, queries: Tensor, k: int, own: Tensor) -> tuple[Tensor, Tensor]:
    need_faiss()
    import faiss

    flat = faiss.IndexFlatIP(bank.shape[1])
    for rows in bank.split(65536):
        flat.add(F.normalize(rows.float(), dim=1).numpy())
    # One more, in the place of the query itself.
    more = int(bool((own >= 0).any()))
    found, places = flat.search(F.normalize(queries.float(), dim=1).numpy(), k + more)
    cosines, rows = torch.from_numpy(found), torch.from_numpy(places)
    if not more:
        return cosines, rows
    # Stable: others keep their order, and what is left out goes to the end.
    order = (rows == own[:, None]).int().argsort(dim=1, stable=True)[:, :k]
    return cosines.gather(1, order), rows.gather(1, order)
