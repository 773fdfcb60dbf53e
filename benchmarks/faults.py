"""A run killed at random moments, again and again, and resumed: its weights must be those of a run left alone.

    python benchmarks/faults.py --kills 100 --out benchmarks/results/kills.json

Makes a folder of images and trains on it for some seconds, with a cache, checkpoints, monitors, final figures and a
page. Each attempt is killed (SIGKILL) after a random time within the length of a whole run, at whatever it is doing.
After each kill there must be a valid checkpoint if there was one before, and `--resume` (or a new start, before there
is anything to resume) must go on. When a run comes to its end, its encoder must equal that of the run left alone bit
for bit, and its log must be the same; then another begins. Exits with 1 if anything was lost.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stopgrad.artifacts.environment import environment
from stopgrad.artifacts.files import checkpoints_in
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.encoder.load import load_encoder

FLAGS = (
    "--steps", "60", "--batch-size", "16", "--image-size", "16", "--backbone", "resnet10_16", "--stem", "small",
    "--init", "random", "--device", "cpu", "--checkpoint-every-steps", "5", "--log-every-steps", "1",
    "--monitor-every-epochs", "1", "--precision", "fp32",
)  # fmt: skip
_PHASES = ("reading images", "training", "measuring", "embedding", "Drawing", "Arranging")


def write_images(folder, num=160):
    rng = np.random.default_rng(0)
    for number in range(num):
        place = folder / f"class{number % 2}" / f"{number:04}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(place)


def start(data, out, cache, log, devices, more=()):
    command = [sys.executable, "-m", "stopgrad", "pretrain", str(data), "--out", str(out), *FLAGS]
    command += ["--cache", str(cache), "--devices", str(devices), *more]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def kill_all(process):
    """The process and those it started."""
    os.killpg(process.pid, 9)
    process.wait()


def phase_of(text):
    """What a killed process said last, in a word."""
    found = [(text.rfind(phase), phase) for phase in _PHASES if phase in text]
    return max(found)[1] if found else "starting"


def finished(out):
    weights = load_encoder(out).backbone.state_dict()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return weights, [(line["step"], line["loss"]) for line in lines]


def differences(out, expected):
    weights, lines = finished(out)
    wrong = [name for name, tensor in expected[0].items() if not torch.equal(tensor, weights[name])]
    return wrong + ([] if lines == expected[1] else ["metrics.jsonl"])


def measure(folder, kills, seed, devices):
    rng, data, log = random.Random(seed), folder / "images", folder / "log.txt"
    write_images(data)
    began = time.monotonic()
    with log.open("w") as file:
        assert start(data, folder / "alone", folder / "cache0", file, devices).wait() == 0, log.read_text()
    length, expected = time.monotonic() - began, finished(folder / "alone")
    phases, lost, done, whole = Counter(), [], 0, 0
    out, cache = folder / "run", folder / "cache"
    while done < kills:
        resumes = RunDir(out).is_run
        had = bool(checkpoints_in(out / "checkpoints")) if resumes else False
        with log.open("w") as file:
            process = start(data, out, cache, file, devices, ("--resume",) if resumes else ())
            try:
                code = process.wait(timeout=rng.uniform(0, length))
            except subprocess.TimeoutExpired:
                code = None
                kill_all(process)
        if code is None:
            done += 1
            phases[phase_of(log.read_text())] += 1
            state, problems = RunDir(out).newest_checkpoint()
            if problems or (had and state is None):
                lost.append(f"kill {done}: {problems or 'no checkpoint is left'}")
        elif code != 0:
            lost.append(f"after kill {done}: exit code {code}: {log.read_text()[-500:]}")
            shutil.rmtree(out)
        else:
            whole += 1
            if wrong := differences(out, expected):
                lost.append(f"after kill {done}: {wrong[:3]} differ")
            shutil.rmtree(out)
            shutil.rmtree(cache, ignore_errors=True)
    if out.exists():
        with log.open("w") as file:
            more = ("--resume",) if RunDir(out).is_run else ()
            code = start(data, out, cache, file, devices, more).wait()
        whole += 1
        if code or (wrong := differences(out, expected)):
            lost.append(f"at the end: exit code {code}, {'' if code else wrong[:3]}")
    return {"kills": done, "whole_runs": whole, "killed_while": dict(phases), "lost": lost, "devices": devices,
            "seconds_of_a_whole_run": round(length, 1), "seed": seed}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.kills, given.seed, given.devices)
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.write_text(json.dumps({**environment(torch.device("cpu"), "fp32"), **found}, indent=1) + "\n")
    sys.exit(bool(found["lost"]))


if __name__ == "__main__":
    main()
