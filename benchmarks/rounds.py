"""What the benchmarks share: arms that take turns, their spread, their ratio to one of them, and the machine."""

import json
import os
import statistics
import sys
from importlib import metadata

import torch

from stopgrad.artifacts.environment import environment


def in_turn(arms, rounds, *, told=None):
    """Rates of each arm (a function without arguments, that returns one), every arm once a round."""
    rates = {name: [] for name in arms}
    for number in range(rounds):
        for name, arm in arms.items():
            rates[name].append(arm())
        if told:
            print(f"{told}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return rates


def spread(values, digits=3):
    """Median, least and most, to so many significant digits."""
    middle, least, most = (float(f"{v:.{digits}g}") for v in (statistics.median(values), min(values), max(values)))
    return {"median": middle, "min": least, "max": most, "n": len(values)}


def beside(rates, name):
    """The spread of each arm's rate, and of its ratio to the arm `name` in the same round."""
    base = rates[name]
    return {
        arm: {"rate": spread(own), "ratio": spread([mine / its for mine, its in zip(own, base, strict=True)])}
        for arm, own in rates.items()
    }


def machine(packages):
    """Versions, machine and command; the packages that are compared too."""
    found = environment(torch.device("cpu"), "fp32")
    for package in packages:
        found["versions"][package] = metadata.version(package)
    del found["precision"]
    # Where things are on this machine is of no use to others.
    return {**found, "command": [os.path.basename(p) if os.path.isabs(p) else p for p in found["command"]]}


def write(path, result):
    """Print a result, and write it where a path is given."""
    text = json.dumps(result, indent=1)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")
    print(text)
