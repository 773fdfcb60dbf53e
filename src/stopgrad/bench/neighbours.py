"""k-NN classification: ours, and the form that is usual in research code."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.bench.clock import Figure, timed
from stopgrad.hardware import choose_device
from stopgrad.metrics.accuracy import knn_predict

K, TEMPERATURE, DIM = 200, 0.2, 512
_CHUNK = 256


def knn(request: dict[str, Any]) -> list[Figure]:
    """Queries classified a second, against a bank five times as many; in the form the request names."""
    device = choose_device("auto")
    generator = torch.Generator().manual_seed(0)
    num_bank, num_classes = request["bank"], request["num_classes"]
    num_queries, k = max(1, num_bank // 5), min(K, num_bank)
    bank = torch.randn((num_bank, DIM), generator=generator).to(device)
    queries = torch.randn((num_queries, DIM), generator=generator).to(device)
    labels = torch.randint(num_classes, (num_bank,), generator=generator).to(device)
    classify = one_hot_knn if request["form"] == "one_hot" else knn_predict

    def work() -> int:
        return int(classify(bank, labels, queries, k=k, temperature=TEMPERATURE, num_classes=num_classes)[-1])

    seconds, _ = timed(work)
    flops = 2.0 * num_bank * DIM
    return [Figure(f"k-NN, {num_classes:,} classes", "queries/s", num_queries / seconds, flops)]


@torch.no_grad()
def one_hot_knn(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, *, k: int, temperature: float, num_classes: int
) -> Tensor:
    """The usual form: a chunk of queries at a time, each neighbour's vote laid out over all classes, all sorted.

    Args and result as of `knn_predict`. Its working memory grows with k times the number of classes.
    """
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    across = bank.T.contiguous()
    predictions = []
    for chunk in queries.split(_CHUNK):
        similarity, index = torch.mm(chunk, across).topk(k, dim=1)
        weights = (similarity / temperature).exp()
        neighbours = bank_labels[index].reshape(-1, 1)
        one_hot = torch.zeros((len(chunk) * k, num_classes), device=bank.device).scatter_(1, neighbours, 1.0)
        votes = (one_hot.view(len(chunk), k, num_classes) * weights.unsqueeze(2)).sum(dim=1)
        predictions.append(votes.argsort(dim=1, descending=True)[:, 0])
    return torch.cat(predictions)
