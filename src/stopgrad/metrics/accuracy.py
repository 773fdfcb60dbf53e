"""k-nearest-neighbour classification of features, exact and in bounded memory."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
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
    if not 1 <= k <= len(bank):
        raise ValueError(f"k = {k}: must be from 1 to the size of the bank, {len(bank)}.")
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}: must be above 0.")
    if len(bank_labels) and not (int(bank_labels.min()) >= 0 and int(bank_labels.max()) < num_classes):
        raise ValueError(f"bank_labels must lie in 0..{num_classes - 1}.")
    dim = bank.shape[1]
    # A block of the bank in float32, and beside it a block of similarities and its copy inside topk.
    bank_rows = max(k, min(len(bank), memory_budget_bytes // 2 // (4 * dim)))
    query_rows = max(1, memory_budget_bytes // 2 // (4 * (2 * bank_rows + dim + 4 * k + num_classes)))
    bank_scale = 1 / torch.linalg.vector_norm(bank, dim=1, dtype=torch.float32).clamp(min=1e-12)
    predictions = []
    for query_block in queries.split(query_rows):
        query_block = F.normalize(query_block.float(), dim=1)
        cosines, labels = (
            query_block.new_empty((len(query_block), 0)),
            bank_labels.new_empty((len(query_block), 0)),
        )
        for start in range(0, len(bank), bank_rows):
            block = bank[start : start + bank_rows].float()
            similarity = (query_block @ block.T).mul_(bank_scale[start : start + bank_rows])
            found, index = similarity.topk(min(k, len(block)), dim=1)
            cosines = torch.cat((cosines, found), dim=1)
            labels = torch.cat((labels, bank_labels[start : start + bank_rows][index]), dim=1)
            if cosines.shape[1] > k:
                cosines, kept = cosines.topk(k, dim=1)
                labels = labels.gather(1, kept)
        # Shifted by the largest, so that a small temperature does not overflow; the vote is the same.
        weights = ((cosines - cosines[:, :1]) / temperature).exp()
        votes = weights.new_zeros((len(query_block), num_classes)).scatter_add_(1, labels, weights)
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions) if predictions else bank_labels.new_empty((0,))
