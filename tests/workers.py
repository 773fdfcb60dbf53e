"""Small runs as programs, and the processes that they start."""

import contextlib
from pathlib import Path

FLAGS = (
    "--backbone", "resnet10_16", "--projector-width", "32", "--projection-dim", "32", "--predictor-width", "16",
    "--batch-size", "64", "--monitor-images", "64", "--final-images", "64", "--precision", "fp32", "--device", "cpu",
    "--no-report", "--no-baselines", "--log-every-steps", "1", "--logger", "none", "--recipe", "digits",
)  # fmt: skip


def worker(parent, rank):
    """The process of a rank, of those that a command started."""
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            its_parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if its_parent == parent and f"\0RANK={rank}\0" in "\0" + (place / "environ").read_text():
                return int(place.name)
    raise AssertionError(f"no process of rank {rank}")
