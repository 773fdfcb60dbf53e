"""Classes by a k-NN vote, for the images of a page."""

import torch
from jaxtyping import Int
from torch import Tensor

from stopgrad.metrics.accuracy import knn_predict_each
from stopgrad.report.images import RunImages, Sample


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
