"""Nearest neighbours by cosine, exact and in bounded memory."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
def neighbour_blocks(
    bank: Float[Tensor, "bank dim"],
    queries: Float[Tensor, "query dim"],
    k: int,
    *,
    own: Int[Tensor, "query"] | None = None,
    numbers_beside: int = 0,
    memory_budget_bytes: int = 256 * 2**20,
) -> Iterator[tuple[slice, Float[Tensor, "block k"], Int[Tensor, "block k"]]]:
    """The k bank features nearest to each query, block of queries by block.

    Args:
        bank: features of any scale: both sides are L2-normalised here.
        queries: features of the same dimension and device.
        k: neighbours, from 1 to the size of the bank (less one with `own`).
        own: the place in the bank of each query itself, which is left out; None where queries are not in the bank.
        numbers_beside: float32 numbers a query that the caller makes of a block, within the same bound.
        memory_budget_bytes: bound on the working memory beside inputs and result; results do not depend on it.

    Yields:
        which queries, their cosines in -1..1, largest first, and the places in the bank.

    Raises:
        ValueError: k out of range.
    """
    most = len(bank) - (own is not None)
    if not 1 <= k <= most:
        others = " without the query itself" if own is not None else ""
        raise ValueError(f"k = {k}: must be from 1 to the size of the bank{others}, {most}.")
    dim = bank.shape[1]
    # A block of the bank in float32, and beside it a block of similarities and its copy inside topk.
    bank_rows = max(k, min(len(bank), memory_budget_bytes // 2 // (4 * dim)))
    query_rows = max(1, memory_budget_bytes // 2 // (4 * (2 * bank_rows + dim + 6 * k + numbers_beside)))
    bank_scale = 1 / torch.linalg.vector_norm(bank, dim=1, dtype=torch.float32).clamp(min=1e-12)
    for first in range(0, len(queries), query_rows):
        rows = slice(first, min(first + query_rows, len(queries)))
        block_of_queries = F.normalize(queries[rows].float(), dim=1)
        cosines = block_of_queries.new_empty((len(block_of_queries), 0))
        places = torch.empty((len(block_of_queries), 0), dtype=torch.int64, device=bank.device)
        for start in range(0, len(bank), bank_rows):
            block = bank[start : start + bank_rows].float()
            similarity = (block_of_queries @ block.T).mul_(bank_scale[start : start + bank_rows])
            if own is not None:
                column = own[rows] - start
                inside = ((column >= 0) & (column < len(block))).nonzero().squeeze(1)
                similarity[inside, column[inside]] = -torch.inf
            found, index = similarity.topk(min(k, len(block)), dim=1)
            cosines, places = torch.cat((cosines, found), dim=1), torch.cat((places, index + start), dim=1)
            if cosines.shape[1] > k:
                cosines, kept = cosines.topk(k, dim=1)
                places = places.gather(1, kept)
        yield rows, cosines, places


def nearest_neighbours(
    bank: Float[Tensor, "bank dim"],
    queries: Float[Tensor, "query dim"],
    k: int,
    *,
    own: Int[Tensor, "query"] | None = None,
    memory_budget_bytes: int = 256 * 2**20,
) -> tuple[Float[Tensor, "query k"], Int[Tensor, "query k"]]:
    """As `neighbour_blocks`, gathered: cosines, largest first, and places in the bank."""
    cosines = torch.empty((len(queries), k), device=queries.device)
    places = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    for rows, found, index in neighbour_blocks(bank, queries, k, own=own, memory_budget_bytes=memory_budget_bytes):
        cosines[rows], places[rows] = found, index
    return cosines, places
