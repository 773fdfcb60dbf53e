"""A run killed at random moments, again and again, and resumed: its weights must be those of a run left alone.

    python benchmarks/faults.py --kills 100 --out benchmarks/results/kills.json
    python benchmarks/faults.py --kills 100 --devices 2 --out benchmarks/results/kills_2.json

Makes a folder of images and trains on it for some seconds, with a cache, checkpoints, monitors, final figures and a
page. Each attempt is killed (SIGKILL) after a random time within the length of a whole run, at whatever it is doing; of
several processes all at once, or the one that was started alone, or one of those that train alone, in turns. At once
every checkpoint is read and its checksum compared: there must be one if there was one before, and none may be damaged.
Then `--resume` (or a new start, before there is anything to resume) must go on. When a run comes to its end, its
encoder must equal that of the run left alone bit for bit, and its log must be the same; then another begins. Prints a
table for docs/reliability.md, and exits with 1 if anything was lost.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stopgrad.artifacts.checkpoint import load_checkpoint
from stopgrad.artifacts.environment import environment
from stopgrad.artifacts.files import checkpoints_in, temporaries_in
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.caching import try_lock
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import CheckpointError

FLAGS = (
    "--steps", "60", "--batch-size", "16", "--image-size", "16", "--backbone", "resnet10_16", "--stem", "small",
    "--init", "random", "--device", "cpu", "--checkpoint-every-steps", "5", "--log-every-steps", "1",
    "--monitor-every-epochs", "1", "--precision", "fp32",
)  # fmt: skip
_PHASES = {
    "reading images": "caching", "Training ": "training", "training ": "training", "Measuring": "measuring",
    "Drawing": "drawing the page", "Run folder": "ending",
}  # fmt: skip
"""What a run says -> what it does."""


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


def started_by(pid):
    """A process and all that it started, itself last."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = stat.read_text().rpartition(")")
            parents[int(number.split()[0])] = int(rest.split()[1])

    def below(parent):
        for child in (child for child, its in parents.items() if its == parent):
            yield from below(child)
        yield parent

    return list(below(pid))


def kill(process, whom, rng, out):
    """Kill all processes of a run, or one, and wait until all have ended and its folder is free."""
    everybody = started_by(process.pid)
    # Before any that train are there, there is but one to kill.
    trains = everybody[:-1]
    chosen = {"launcher": [process.pid], "rank": [rng.choice(trains)] if trains else []}.get(whom) or everybody
    for pid in chosen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 120
    while any(is_running(pid) for pid in everybody) or is_held(RunDir(out)):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def is_held(run):
    """Whether a process holds the folder: one that was just being started is in no list."""
    lock = try_lock(run.lock_file) if run.lock_file.exists() else None
    if lock is not None:
        lock.close()
    return lock is None and run.lock_file.exists()


def verified(out):
    """Steps of the checkpoints, newest first, each read and compared with its checksum; and what is wrong."""
    steps, wrong = [], []
    best = RunDir(out).best_file
    for path in [*checkpoints_in(out / "checkpoints"), *([best] if best.exists() else [])]:
        try:
            state = load_checkpoint(path)
        except CheckpointError as error:
            wrong.append(str(error))
        else:
            steps += [state["progress"]["step"]] if path != best else []
    return steps, wrong


def phase_of(text):
    """What a killed process did last, by what it said."""
    found = [(text.rfind(words), phase) for words, phase in _PHASES.items() if words in text]
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
    phases, victims, lost, read, whole = Counter(), Counter(), [], 0, 0
    out, cache = folder / "run", folder / "cache"
    while sum(phases.values()) < kills:
        resumes = RunDir(out).is_run
        before = verified(out)[0] if resumes else []
        whom = ("all", "launcher", "rank")[sum(phases.values()) % 3] if devices > 1 else "all"
        with log.open("w") as file:
            process = start(data, out, cache, file, devices, ("--resume",) if resumes else ())
            try:
                code = process.wait(timeout=rng.uniform(0, length))
            except subprocess.TimeoutExpired:
                code = None
                kill(process, whom, rng, out)
        if code is None:
            phases[phase_of(log.read_text())] += 1
            victims[whom] += 1
            steps, wrong = verified(out)
            read += len(steps)
            print(f"kill {sum(phases.values())}: {whom}, {phase_of(log.read_text())}, checkpoints {steps}", flush=True)
            if wrong or (before and (not steps or steps[0] < before[0])):
                lost.append(f"kill {sum(phases.values())}: checkpoints {before} became {steps}; {wrong}")
        elif code != 0:
            lost.append(f"after kill {sum(phases.values())}: exit code {code}: {log.read_text()[-500:]}")
            shutil.rmtree(out, ignore_errors=True)
        else:
            whole += 1
            if wrong := differences(out, expected):
                lost.append(f"after kill {sum(phases.values())}: {wrong[:3]} differ")
            shutil.rmtree(out)
            shutil.rmtree(cache, ignore_errors=True)
    if out.exists():
        with log.open("w") as file:
            more = ("--resume",) if RunDir(out).is_run else ()
            code = start(data, out, cache, file, devices, more).wait()
        whole += 1
        if code or (wrong := differences(out, expected)):
            lost.append(f"at the end: exit code {code}, {log.read_text()[-500:] if code else wrong[:3]}")
        if litter := [*temporaries_in(out), *temporaries_in(out / "checkpoints")]:
            lost.append(f"at the end: {litter} are left")
    return {"kills": sum(phases.values()), "killed_while": dict(phases), "killed": dict(victims),
            "checkpoints_verified": read, "whole_runs": whole, "lost": lost, "devices": devices,
            "seconds_of_a_whole_run": round(length, 1), "seed": seed}  # fmt: skip


def table(found):
    """A row for docs/reliability.md, with its head."""
    while_ = ", ".join(f"{num} {phase}" for phase, num in sorted(found["killed_while"].items(), key=lambda p: -p[1]))
    whom = ", ".join(f"{num} {name}" for name, num in found["killed"].items())
    row = (found["devices"], found["kills"], whom, while_, found["checkpoints_verified"], found["whole_runs"],
           len(found["lost"]))  # fmt: skip
    head = (
        "processes",
        "kills",
        "killed",
        "while",
        "checkpoints verified after a kill",
        "whole runs, all equal",
        "lost",
    )
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in (head, ["---"] * len(head), row))


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
    print(table(found))
    if given.out:
        given.out.write_text(json.dumps({**environment(torch.device("cpu"), "fp32"), **found}, indent=1) + "\n")
    sys.exit(bool(found["lost"]))


if __name__ == "__main__":
    main()
