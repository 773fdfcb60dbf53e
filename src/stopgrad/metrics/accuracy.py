"""k-nearest-neighbour classification of features, exact and in bounded memory."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stopgrad.metrics.neighbours import neighbour_blocks


def knn_predict(
    bank: Float[Tensor, "bank dim"],
    bank_labels: Int[Tensor, "bank"],
    queries: Float[Tensor, "query dim"],
    *,
    k: int,
    temperature: float,
    num_classes: int,
    memory_budget_bytes: int = 256 * 2**20,
) -> Int[Tensor, "query"]:
    """Weighted vote of the k nearest bank features by cosine, each neighbour with weight exp(cosine / temperature).

    Args:
        bank: labelled features, any scale: both sides are L2-normalised here.
        bank_labels: class of each bank feature, in 0..num_classes - 1.
        queries: features to classify, same dimension and device.
        k: neighbours that vote, from 1 to the size of the bank.
        temperature: above 0; the smaller, the more the nearest count.
        num_classes: number of classes.
        memory_budget_bytes: bound on the working memory beside inputs and result; results do not depend on it.

    Returns:
        int64 `[query]`: the class with most votes, the lowest of equals.

    Raises:
        ValueError: k above the size of the bank, a temperature or label out of range.

    Source: Wu et al. (arXiv 1805.01978), section 3.4; k = 200, T = 0.1 there.
    """
    return knn_predict_each(
        bank, bank_labels, queries, ks=(k,), temperature=temperature, num_classes=num_classes,
        memory_budget_bytes=memory_budget_bytes,
    )[k]  # fmt: skip


@torch.no_grad()
def knn_predict_each(
    bank: Float[Tensor, "bank dim"],
    bank_labels: Int[Tensor, "bank"],
    queries: Float[Tensor, "query dim"],
    *,
    ks: Sequence[int],
    temperature: float,
    num_classes: int,
    own: Int[Tensor, "query"] | None = None,
    memory_budget_bytes: int = 256 * 2**20,
) -> dict[int, Int[Tensor, "query"]]:
    """As `knn_predict` for several k, the neighbours found once.

    Args:
        bank, bank_labels, queries, temperature, num_classes, memory_budget_bytes: as there.
        ks: the numbers of neighbours that vote.
        own: the place in the bank of each query itself, which does not vote (leave-one-out); None where queries are
            not in the bank.

    Returns:
        k -> int64 `[query]`.

    Raises:
        ValueError: as there.
    """
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}: must be above 0.")
    if len(bank_labels) and not (int(bank_labels.min()) >= 0 and int(bank_labels.max()) < num_classes):
        raise ValueError(f"bank_labels must lie in 0..{num_classes - 1}.")
    if not ks or min(ks) < 1:
        raise ValueError(f"k = {min(ks, default='none')}: must be from 1 to the size of the bank.")
    predicted = {k: torch.empty(len(queries), dtype=torch.int64, device=bank.device) for k in ks}
    for rows, cosines, places in neighbour_blocks(
        bank, queries, max(ks), own=own, numbers_beside=num_classes, memory_budget_bytes=memory_budget_bytes
    ):
        labels = bank_labels[places]
        # Shifted by the largest, so that a small temperature does not overflow; the vote is the same.
        weights = ((cosines - cosines[:, :1]) / temperature).exp()
        for k, out in predicted.items():
            votes = weights.new_zeros((len(labels), num_classes))
            out[rows] = votes.scatter_add_(1, labels[:, :k], weights[:, :k]).argmax(dim=1)
    return predicted
