"""Writes a data set's features by a run's encoder, and searches its training images: time and memory.

python benchmarks/embed_and_search.py RUN DATA

Exact search and faiss take turns; medians of five, queries are the test images.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import stopgrad
from stopgrad.retrieval.duplicates import joined
from stopgrad.retrieval.index import nearest


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main():
    run, data = sys.argv[1:]
    result = {"threads": torch.get_num_threads(), "peak_mb_imports": peak_mb()}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "features.parquet"
        written = stopgrad.embed_to_file(run, data, out)
        result |= {
            "images": written.num_images, "dim": written.dim, "seconds": written.seconds,
            "images_per_second": written.images_per_second, "peak_mb": peak_mb(), "file_mb": out.stat().st_size / 1e6,
        }  # fmt: skip
        found = stopgrad.read_embeddings(out)
    train = torch.tensor([split != "test" for split in found.splits])
    bank, queries = found.vectors[train], found.vectors[~train]
    for num in (1, 100, len(queries)):
        own = torch.full((num,), -1)
        times = {"exact": [], "faiss": []}
        for _ in range(5 if num < 1000 else 1):
            for index, taken in times.items():
                began = time.perf_counter()
                nearest(bank, queries[:num], 20, own, index)
                taken.append(time.perf_counter() - began)
        result |= {f"{index}_{num}_queries_ms": 1000 * statistics.median(taken) for index, taken in times.items()}
    began = time.perf_counter()
    joined(bank, 0.99)
    result |= {"bank": len(bank), "duplicates_seconds": time.perf_counter() - began, "peak_mb_end": peak_mb()}
    print(json.dumps({name: round(value, 1) for name, value in result.items()}, indent=2))


if __name__ == "__main__":
    main()
