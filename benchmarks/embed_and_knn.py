"""Embeds a data set's training and test images with a run's encoder and classifies the latter by k-NN: time and memory.

python benchmarks/embed_and_knn.py RUN DATA
"""

import json
import resource
import sys
import time

import torch

import stopgrad
from stopgrad.data.open import open_images


def labels_of(source):
    return torch.tensor([source.label(index) for index in range(len(source))])


def main():
    run, data = sys.argv[1:]
    encoder, splits = stopgrad.load_encoder(run), open_images(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    bank, queries = encoder.embed(splits.train), encoder.embed(splits.test)
    embedded = time.perf_counter()
    predicted = stopgrad.knn_predict(
        bank, labels_of(splits.train), queries, k=200, temperature=0.2, num_classes=len(splits.train.class_names)
    )
    ended = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "images": len(bank) + len(queries),
        "dim": bank.shape[1],
        "seconds_embedding": round(embedded - start, 1),
        "seconds_knn": round(ended - embedded, 1),
        "accuracy": float((predicted == labels_of(splits.test)).float().mean()),
        "peak_mb_before": before // 1024,
        "peak_mb_after": after // 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
