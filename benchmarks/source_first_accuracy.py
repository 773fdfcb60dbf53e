"""Source-first encoding beside the plain form of the same guided BYOL: k-NN at equal views and at equal seconds.

    taskset -c 1 python benchmarks/source_first_accuracy.py CIFAR10 OUT --seeds 0 1 2

25,000 training images: 5,000 held out as queries, 20,000 trained on. Three arms a seed, each with its own
complete schedule: the plain form, source-first for as many epochs, and source-first for as many as take the plain
form's time, by the ratio of seconds a step that `--seconds-ratio` gives (measured beforehand, both in one run).
"""

import argparse
import json
from pathlib import Path

import stopgrad
from stopgrad.data.open import open_images
from stopgrad.data.sources import Subset

NUM_IMAGES = 25_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seconds-ratio", type=float, default=1.5)
    arguments = parser.parse_args()
    images = Subset(open_images(arguments.data).train, range(NUM_IMAGES))
    steps = arguments.epochs * ((NUM_IMAGES - 5000) // 128)
    arms = {
        "plain": (False, steps),
        "source_first_equal_views": (True, steps),
        "source_first_equal_seconds": (True, round(steps * arguments.seconds_ratio)),
    }
    for seed in arguments.seeds:
        for name, (source_first, arm_steps) in arms.items():
            out = arguments.out / f"{name}-{seed}"
            run = stopgrad.pretrain(
                images, out=out, recipe="cifar10_small", source_first=source_first, steps=arm_steps, seed=seed,
                holdout=5000, monitor_images=1000, resume=(out / "config.toml").exists(),
            )  # fmt: skip
            kept = ("steps", "knn_top1", "views_per_second", "knn_protocol")
            line = {"arm": name, "seed": seed, **{key: run.metrics[key] for key in kept}}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
