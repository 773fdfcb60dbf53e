"""Time, cost and bytes on the wire of large runs, from one GPU's rate; and bytes counted between processes.

    python benchmarks/scale.py                  # the tables of docs/scale.md
    python benchmarks/scale.py --count 2 3 4    # bytes that so many processes send here in a step, and as computed

What is assumed stands in `Machine`; every figure is a flag. Nothing here was measured on a GPU.
"""

import argparse
import json
import math
import os
import socket
import struct
import subprocess
import sys
import warnings
from dataclasses import dataclass, fields, replace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad.config import Config
from stopgrad.methods import build

IMAGENET, EPOCHS, MANY = 1_281_167, 100, 10**8
BYTES = 4
"""Of a float32."""


@dataclass(frozen=True)
class Machine:
    """What is assumed of the hardware."""

    images_per_second: float = 2470
    """One GPU trains ResNet-50 with labels so fast, one view an image: published for an A100 (docs/scale.md)."""
    gigabytes_per_second: float = 20
    """A GPU sends so much to other nodes in an all-reduce, of the 25 that a link of 200 Gbit/s carries."""
    gigabytes_per_second_within: float = 200
    """The same within a node of 8."""
    latency_us: float = 30
    """A small collective takes so long within a node of 8."""
    latency_between_us: float = 60
    """The same between two nodes, and half as long again for each doubling of their number."""
    launch_ms: float = 15
    """A step takes so long at least, however few the images: Python starts some thousand kernels."""
    dollars_per_hour: float = 2.0
    """Of one GPU."""


@dataclass(frozen=True)
class Step:
    """One step's sizes, of a network and its views."""

    weights: int
    """That are trained."""
    norms: int
    """BatchNorms, of encoder and predictor."""
    channels: int
    """Of them all."""
    views: int
    dim: int
    """Of a projection."""

    @property
    def sources(self) -> int:
        """Views that pass with gradient: one of each pair."""
        return self.views // 2

    @property
    def passes(self) -> float:
        """Cost of an image, in trainings of one view: targets take the forward third, sources all of it."""
        return self.views / 3 + self.sources


def step_of(config: Config) -> Step:
    """The sizes of a config's method, guided and sources first."""
    with torch.device("meta"):
        method = build(config)
    trained = [method.encoder, *([method.predictor] if getattr(method, "predictor", None) is not None else [])]
    norms = [part for network in trained for part in network.modules() if isinstance(part, _BatchNorm)]
    return Step(
        sum(p.numel() for network in trained for p in network.parameters()), len(norms),
        sum(norm.num_features for norm in norms), config.objective.views, config.network.projection_dim,
    )  # fmt: skip


def resnet50(views: int) -> Step:
    """BYOL's network (arXiv 2006.07733): ResNet-50, hidden layers of 4,096, projections of 256."""
    return step_of(
        Config().replace(
            method="byol", backbone="resnet50", image_size=224, views=views, projector_layers=2,
            projector_norm="hidden", projector_width=4096, predictor_width=4096, projection_dim=256,
        )
    )  # fmt: skip


def bytes_sent(step: Step, gpus: int, batch: int) -> dict[str, float]:
    """Bytes that each process sends in one step.

    A ring all-reduce of a tensor sends 2 (N - 1) / N of its bytes, an all-gather N - 1 times one's own part. BatchNorm
    (torch's SyncBatchNorm): forward, mean, deviation and count of each layer are gathered, for targets and sources;
    backward, two sums a channel are reduced, for sources. Guide: every process has all targets.
    """
    ring = 2 * (gpus - 1) / gpus
    gathered = (gpus - 1) * (2 * step.channels + step.norms) * (step.views + step.sources)
    return {
        "gradients": ring * step.weights * BYTES,
        "batchnorm": (gathered + ring * 2 * step.channels * step.sources) * BYTES,
        "guide": (gpus - 1) / gpus * batch * step.views * step.dim * BYTES,
    }


def step_seconds(step: Step, gpus: int, batch: int, machine: Machine) -> dict[str, float]:
    """What a step's time is made of, for one process."""
    nodes = max(1, gpus // 8)
    compute = batch / gpus * step.passes / machine.images_per_second
    latency = machine.latency_us if nodes == 1 else machine.latency_between_us * (1 + math.log2(nodes / 2) / 2)
    sent = bytes_sent(step, gpus, batch)
    # Gradients travel while the backward pass goes on, which is two thirds of a source's cost.
    hidden = compute * (2 / 3 * step.sources) / step.passes
    speed = 1e9 * (machine.gigabytes_per_second if nodes > 1 else machine.gigabytes_per_second_within)
    many = step.norms * (step.views + 2 * step.sources) if gpus > 1 else 0
    return {
        "compute": max(compute, machine.launch_ms / 1000),
        "batchnorm": many * latency / 1e6 + sent["batchnorm"] / speed,
        "guide": (latency / 1e6 if gpus > 1 else 0.0) + sent["guide"] / speed,
        "gradients": max(0.0, sent["gradients"] / speed - hidden),
    }


def run(images: float, step: Step, gpus: int, batch: int, machine: Machine) -> dict[str, float]:
    """Hours, dollars and the share of the GPUs' rate of a run over so many images."""
    parts = step_seconds(step, gpus, batch, machine)
    seconds = images / batch * sum(parts.values())
    ideal = images * step.passes / machine.images_per_second / gpus
    return {
        "gpus": gpus, "batch": batch, "images_a_gpu": batch // gpus, "hours": seconds / 3600,
        "dollars": seconds / 3600 * gpus * machine.dollars_per_hour, "efficiency": ideal / seconds,
        **{f"{name}_ms": 1000 * value for name, value in parts.items()},
    }  # fmt: skip


def tables(machine: Machine, gpus: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512), batch: int = 4096) -> str:
    """The tables of docs/scale.md, in Markdown."""
    lines = []
    for views in (2, 4):
        step = resnet50(views)
        lines += [
            "", f"{views} views, {step.passes:.2f} passes an image:", "",
            "| GPUs | images a GPU | ms a step: compute | BatchNorm | guide | gradients not hidden | efficiency "
            "| ImageNet, 100 epochs | 10^8 images, once |", "|" + "---|" * 9,
        ]  # fmt: skip
        for number in gpus:
            small, large = (run(num, step, number, batch, machine) for num in (IMAGENET * EPOCHS, MANY))
            lines.append(
                f"| {number} | {small['images_a_gpu']} | {small['compute_ms']:.0f} | {small['batchnorm_ms']:.1f} "
                f"| {small['guide_ms']:.1f} | {small['gradients_ms']:.1f} | {small['efficiency']:.0%} "
                f"| {small['hours']:.1f} h, ${small['dollars']:,.0f} "
                f"| {large['hours']:.1f} h, ${large['dollars']:,.0f} |"
            )
    lines += ["", "| MB that each process sends a step | gradients | BatchNorm | guide |", "|" + "---|" * 4]
    for views in (2, 4):
        for number in (8, 64, 512):
            sent = bytes_sent(resnet50(views), number, batch)
            figures = " | ".join(f"{value / 1e6:.1f}" for value in sent.values())
            lines.append(f"| {views} views, {number} GPUs | {figures} |")
    return "\n".join(lines[1:])


# Counting


def small() -> Config:
    """A network whose step is counted."""
    return Config().replace(
        method="byol", backbone="resnet10_16", image_size=16, views=2, projection_dim=64, source_first=True
    )


def _sent_so_far() -> int:
    """Bytes that the other ends of this process's TCP connections have acknowledged (Linux: tcp(7), TCP_INFO)."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.type == socket.SOCK_STREAM and one.family in (socket.AF_INET, socket.AF_INET6):
                    # bytes_acked: after 8 bytes of flags, 24 numbers of 4 bytes and two of 8.
                    total += struct.unpack_from("Q", one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136), 120)[0]
        except (OSError, ValueError):
            continue
    return total


def _counted(work) -> int:
    dist.barrier()
    before = _sent_so_far()
    work()
    dist.barrier()
    return _sent_so_far() - before


def count_here(images: int = 4) -> dict[str, int]:
    """One process's part of a step, with gloo: what it sends for gradients, BatchNorm and guide."""
    dist.init_process_group("gloo")
    config, world = small(), dist.get_world_size()
    torch.manual_seed(0)
    method = build(config).train()
    step = step_of(config)
    with warnings.catch_warnings():
        # torch 2.14 has a new name for it, which 2.9 does not know.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
    norms = [p.num_features for network in (method.encoder, method.predictor) for p in network.modules()
             if isinstance(p, _BatchNorm)]  # fmt: skip

    def gradients() -> None:
        wrapped(torch.randn(2, images, 3, 16, 16), torch.Generator())[0].backward()

    def gather(own: torch.Tensor) -> None:
        dist.all_gather([torch.empty_like(own) for _ in range(world)], own)

    def statistics() -> None:
        for channels in norms:
            for _ in range(step.views + step.sources):
                gather(torch.zeros(2 * channels + 1))
            for _ in range(step.sources):
                dist.all_reduce(torch.zeros(2 * channels))

    gradients()  # DDP settles its buckets after the first step
    nothing = _counted(lambda: None)
    found = {
        "gradients": _counted(gradients) - nothing,
        "batchnorm": _counted(statistics) - nothing,
        "guide": _counted(lambda: gather(torch.zeros(images, step.views, step.dim))) - nothing,
    }
    dist.destroy_process_group()
    return found


def count(world: int, images: int = 4) -> dict[str, dict[str, float]]:
    """Bytes that each of so many processes sends here in a step: counted (the mean over processes) and computed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--process", str(images)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(world)
    ]  # fmt: skip
    counted = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in processes]
    computed = bytes_sent(step_of(small()), world, world * images)
    return {
        name: {"counted": sum(one[name] for one in counted) / world, "computed": value}
        for name, value in computed.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, nargs="+", metavar="N", help="count the bytes between N processes here")
    parser.add_argument("--batch", type=int, default=4096, help="images a step, of all GPUs together")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    for field in fields(Machine):
        parser.add_argument("--" + field.name.replace("_", "-"), type=float, default=field.default)
    given = vars(parser.parse_args())
    if given["process"]:
        print(json.dumps(count_here(given["process"])))
    elif given["count"]:
        for world in given["count"]:
            for name, value in count(world).items():
                share = value["counted"] / value["computed"]
                print(f"| {world} | {name} | {value['computed']:,.0f} | {value['counted']:,.0f} | {share:.3f} |")
    else:
        print(tables(replace(Machine(), **{f.name: given[f.name] for f in fields(Machine)}), batch=given["batch"]))


if __name__ == "__main__":
    main()
