"""How near the gradient of source-first encoding is to that of the plain form, under BatchNorm's batch statistics.

    python benchmarks/source_first.py RUN [--steps 20] [--batch-size 128]

RUN is a run folder with its checkpoints: its images, settings and newest weights are used, and untrained weights beside
them. For each batch the guided loss is computed both ways with the same views, partners and choices; compared is
the gradient of all trained weights. Beside it stands the cosine between plain gradients of different batches: how much
one batch says of another.
"""

import argparse
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.data.open import open_images
from stopgrad.distributed.rank import Rank
from stopgrad.hardware import autocast, choose_precision
from stopgrad.loader.loader import Loader
from stopgrad.reporter import SilentReporter
from stopgrad.train.build import build_method, load_stores

CPU = torch.device("cpu")


def gradient(method, views, seed, precision):
    method.zero_grad()
    with autocast(CPU, precision):
        loss, _ = method(views, torch.Generator().manual_seed(seed))
    loss.backward()
    return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]).double()


def cosine(first, second):
    return float(first @ second / (first.norm() * second.norm()))


def spread(values):
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "n": len(values)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    run = RunDir(arguments.run)
    trained, _ = run.newest_checkpoint()
    results = []
    config = run.read_config().replace(source_first=True, batch_size=arguments.batch_size, devices=1)
    store, _ = load_stores(config, open_images(config.data.path), SilentReporter(), with_queries=False)
    loader = Loader(store, config, Rank())
    with ThreadPoolExecutor(1) as pool:
        batches = [loader.load(loader.indices(step), 0, pool) for step in range(arguments.steps)]
    for weights, state in (("untrained", None), ("trained", trained)):
        for name in ("simsiam", "byol"):
            if name == "simsiam" and weights == "trained" and config.objective.method == "byol":
                continue
            method = build_method(config.replace(method=name), CPU).train()
            if state is not None:
                method.load_state_dict(state["method"])
            for precision in sorted({"fp32", choose_precision("auto", CPU)}):
                same, plain = [], []
                for step, batch in enumerate(batches):
                    views = loader.views(batch, CPU)
                    method.source_first = True
                    ours = gradient(method, views, step, precision)
                    method.source_first = False
                    plain.append(gradient(method, views, step, precision))
                    same.append(cosine(ours, plain[-1]))
                others = [cosine(*pair) for pair in itertools.pairwise(plain)]
                results.append(
                    {"weights": weights, "method": name, "precision": precision, "cosine": spread(same),
                     "cosine_between_batches": spread(others)}
                )  # fmt: skip
    print(json.dumps({"batch_size": arguments.batch_size, "results": results}, indent=1))


if __name__ == "__main__":
    main()
