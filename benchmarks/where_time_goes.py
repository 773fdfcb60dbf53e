"""Where the time of a training step goes, by kind of operation: one process, one thread unless --threads says more.

    python benchmarks/where_time_goes.py --recipe cifar10 --batch-size 64 --steps 3

Views are random numbers of the recipe's size: what counts is the network. Further settings go as NAME=VALUE.
"""

import argparse
import json
import time
import tomllib

import torch
from torch.profiler import ProfilerActivity, profile

from stopgrad.hardware import autocast, choose_device, choose_precision
from stopgrad.recipes import base_config
from stopgrad.train.build import build_method
from stopgrad.train.optim import build_optimizer

KINDS = {
    "convolution": ("conv",),
    "matrix product": ("mm", "linear", "bmm"),
    "BatchNorm": ("batch_norm",),
    "ReLU": ("relu", "threshold", "clamp_min"),
    "optimizer and EMA": ("_fused_", "_foreach_"),
    "copies and casts": ("copy_", "to_copy", "cat", "contiguous"),
    "pooling": ("pool", "mean"),
}


def kind_of(name):
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "everything else")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="cifar10")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("settings", nargs="*", help="NAME=VALUE, the value as in TOML")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    given = tomllib.loads("\n".join(arguments.settings))
    config = base_config(arguments.recipe).replace(**given)
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    method = build_method(config, device).train()
    optimizer = build_optimizer(method, config)
    size = config.data.image_size
    shape = (config.objective.views, arguments.batch_size, size, size, 3)
    views = torch.randn(shape, device=device).permute(0, 1, 4, 2, 3)
    generator = torch.Generator()

    def step():
        with autocast(device, precision):
            loss, _ = method(views, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        method.after_step(0.5)

    step()
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(arguments.steps):
            step()
    seconds = (time.perf_counter() - start) / arguments.steps
    shares = {}
    for event in profiler.key_averages():
        kind = kind_of(event.key)
        shares[kind] = shares.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(shares.values())
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    result = {
        "backbone": config.network.backbone,
        "image_size": size,
        "precision": precision,
        "views_per_second": round(shape[0] * arguments.batch_size / seconds, 1),
        "seconds_a_step": round(seconds, 3),
        "percent": {kind: round(100 * value / total, 1) for kind, value in ordered},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
