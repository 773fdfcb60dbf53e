"""Damaged files for every reader: no crash, no hang, no unbounded memory, no error that is not the program's own.

    python benchmarks/fuzz.py READER [READER ...] --inputs 10000 --seconds 600 --seed 0 --keep findings/
    python benchmarks/fuzz.py all --out benchmarks/results/fuzz.json    # adds to what is there
    python benchmarks/fuzz.py config --atheris    # guided by coverage of the readers' Python code (pip install atheris)

Each input is a valid file that is mutated at random: bits, bytes and numbers set, parts cut out, repeated or taken from
another valid file, the end cut off. It is a function of the seed and its number. Inputs are read in a child process,
whose memory and time for one input are bounded; a child that dies, stops or grows is recorded with its input, and
another goes on behind it.
"""

import argparse
import contextlib
import json
import mmap
import os
import platform
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

if "--atheris" in sys.argv:
    import atheris

    # The coverage of modules that are imported here is seen.
    with atheris.instrument_imports(include=["stopgrad", "fuzz_readers", "zipfile", "tarfile", "tomllib"]):
        import fuzz_readers as readers

        for module in ("artifacts.run_dir", "artifacts.checkpoint", "data.open", "embeddings.read", "encoder.load"):
            import_module(f"stopgrad.{module}")
else:
    import fuzz_readers as readers

MOST_SECONDS = 20.0
"""Of a processor, for one input; of the clock twenty times as many, as the machine may be busy."""
ADDRESS_SPACE = 24_000_000_000
LIBRARIES = ("numpy", "pillow", "pyarrow", "safetensors", "torch")
_NUMBERS = (0, 1, 2, 2**40, *(2**bits - more for bits in (7, 8, 15, 16, 31, 32, 63, 64) for more in (0, 1)))


def mutated(seeds: Sequence[bytes], draw: random.Random) -> bytes:
    """One of the valid files, damaged in one to six places."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        if not data:
            break
        at = draw.randrange(len(data))
        # Headers are at the beginning, directories at the end.
        if draw.random() < 0.5:
            near = min(len(data), 256)
            at = draw.randrange(near) if draw.random() < 0.6 else len(data) - 1 - draw.randrange(near)
        kind = draw.randrange(8)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at] = draw.randrange(256)
        elif kind == 2:
            width, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
            number = draw.choice(_NUMBERS) % (1 << 8 * width)
            data[at : at + width] = number.to_bytes(width, order)
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + draw.randrange(1, 65)]
        elif kind == 5:
            data[at:at] = data[at : at + draw.randrange(1, 65)] * draw.choice((1, 2, 50))
        elif kind == 6:
            other = draw.choice(seeds)
            start = draw.randrange(len(other)) if other else 0
            part = other[start : start + draw.choice((4, 16, 64, 1024, len(other)))]
            data[at : at + draw.choice((0, len(part)))] = part
        else:
            # A digit of a number that is written as text.
            digits = [place for place, byte in enumerate(data[:4096]) if 48 <= byte <= 57]
            if digits:
                data[draw.choice(digits)] = draw.choice(b"0123456789-.e")
    return bytes(data)


def input_of(seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    """The input of a number; the first are the valid files themselves."""
    return seeds[number] if number < len(seeds) else mutated(seeds, random.Random(f"{seed} {number}"))


class Progress:
    """What child and parent share: number of the input that is read, how many were taken, how many refused."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(24))
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 24)

    def get(self) -> tuple[int, int, int]:
        return struct.unpack("<qqq", self._memory[:24])

    def set(self, number: int, taken: int, refused: int) -> None:
        self._memory[:24] = struct.pack("<qqq", number, taken, refused)


def work(reader: str, seed: int, first: int, inputs: int, folder: Path) -> None:
    """The child: read inputs; errors of others, and memory beyond the bound, go to findings.jsonl."""
    warnings.simplefilter("ignore")
    room = Path(tempfile.mkdtemp(dir=folder))
    os.environ["STOPGRAD_CACHE"] = str(room / "cache")
    chosen = readers.READERS[reader]
    seeds = chosen.seeds(room)
    # What is imported on the way counts for no input.
    with contextlib.suppress(*readers.OWN):
        chosen.read(seeds[0], room)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    progress = Progress(folder / "progress")
    _, taken, refused = progress.get()
    at_start = _peak()
    for number in range(first, inputs):
        progress.set(number, taken, refused)
        data = input_of(seeds, seed, number)
        try:
            chosen.read(data, room)
            taken += 1
        except readers.OWN:
            refused += 1
        except BaseException:
            _note(folder, number, traceback.format_exc())
        if (peak := _peak() - at_start) > chosen.most_bytes:
            _note(folder, number, f"memory: {peak / 1e9:.2f} GB")
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
            at_start = min(at_start, _peak())
    progress.set(inputs, taken, refused)


def _note(folder: Path, number: int, text: str) -> None:
    with open(folder / "findings.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"number": number, "what": text}) + "\n")


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def fuzz(reader: str, inputs: int, seconds: float, seed: int, keep: Path | None) -> dict[str, object]:
    """Read inputs in children; what was found."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        progress = Progress(folder / "progress", create=True)
        first, died = 0, 0
        while first < inputs and time.monotonic() - began < seconds:
            arguments = ["--work", str(first), "--inputs", str(inputs), "--seed", str(seed), "--folder", name]
            child = subprocess.Popen(
                [sys.executable, __file__, reader, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            why = _watched(child, progress, began + seconds)
            number, taken, refused = progress.get()
            if why == "time is up" or (not why and number >= inputs):
                first = number
                break
            _note(folder, number, why or f"the child ended with code {child.returncode}")
            died += 1
            # One that cannot even begin says nothing of an input.
            if died > 50:
                break
            first = number + 1
            progress.set(first, taken, refused)
        _, taken, refused = progress.get()
        found = []
        if (folder / "findings.jsonl").exists():
            found = [json.loads(line) for line in (folder / "findings.jsonl").read_text().splitlines()]
        kinds: dict[str, list[int]] = {}
        for finding in found:
            kinds.setdefault(_kind(finding["what"]), []).append(finding["number"])
        if keep is not None and found:
            keep.mkdir(parents=True, exist_ok=True)
            seeds = readers.READERS[reader].seeds(folder)
            for finding in found:
                stem = keep / f"{reader}-{seed}-{finding['number']}"
                stem.with_suffix(".input").write_bytes(input_of(seeds, seed, finding["number"]))
                stem.with_suffix(".txt").write_text(finding["what"])
    taken_up = min(first, inputs)
    return {
        "reader": reader, "seed": seed, "inputs": taken_up, "taken": taken, "refused": refused,
        "findings": {kind: {"times": len(numbers), "first": numbers[0]} for kind, numbers in kinds.items()},
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def add_to(path: Path, found: dict[str, object]) -> None:
    """Put a reader's results into a JSON file, in the place of earlier ones of the same reader and seed."""
    rows = json.loads(path.read_text(encoding="utf-8"))["readers"] if path.exists() else []
    rows = [row for row in rows if (row["reader"], row["seed"]) != (found["reader"], found["seed"])]
    rows = sorted([*rows, found], key=lambda row: (list(readers.READERS).index(row["reader"]), row["seed"]))
    libraries = {name: metadata.version(name) for name in LIBRARIES}
    about = {"versions": {"python": platform.python_version(), **libraries}, "platform": platform.platform()}
    content = {**about, "inputs": sum(row["inputs"] for row in rows), "readers": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(path: Path) -> str:
    """The results in a JSON file for docs/security.md: a row a reader, all its seeds together, and their sum."""
    rows: dict[str, list[int]] = {"all but `lmdb`, `hdf5`": [0, 0, 0, 0]}
    for row in json.loads(path.read_text(encoding="utf-8"))["readers"]:
        counts = [row["inputs"], row["taken"], row["refused"], sum(kind["times"] for kind in row["findings"].values())]
        native = readers.READERS[row["reader"]].native
        for name in (f"`{row['reader']}`", *([] if native else list(rows)[:1])):
            rows[name] = [a + b for a, b in zip(rows.get(name, [0] * 4), counts, strict=True)]
    total = {name: rows.pop(name) for name in list(rows)[:1]}
    head = ["| reader | inputs | taken | refused | findings |", "|---|---|---|---|---|"]
    lines = [f"| {name} | " + " | ".join(f"{n:,}" for n in counts) + " |" for name, counts in (rows | total).items()]
    return "\n".join(head + lines)


def _kind(what: str) -> str:
    lines = what.strip().splitlines()
    places = [line.strip() for line in lines if "stopgrad/" in line]
    where = places[-1].split("stopgrad/")[-1] if places else ""
    return f"{lines[-1][:100]} {where}".strip()


def _watched(child: "subprocess.Popen[bytes]", progress: Progress, until: float) -> str:
    """Wait for a child; in words why it was ended, or empty."""
    last, at, since = -1, 0.0, time.monotonic()
    while child.poll() is None:
        time.sleep(0.05)
        number, used, now = progress.get()[0], _cpu_seconds(child.pid), time.monotonic()
        if number != last:
            last, at, since = number, used, now
        elif used - at > MOST_SECONDS or now - since > 20 * MOST_SECONDS:
            child.kill()
            child.wait()
            return f"hang: {used - at:.0f} s of a processor, {now - since:.0f} s of the clock"
        if now > until:
            child.kill()
            child.wait()
            return "time is up"
    return f"crash: signal {-child.returncode}" if child.returncode < 0 else ""


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def guided(reader: str, inputs: int, seconds: float, keep: Path | None) -> None:
    """Inputs chosen by the Python code that they reach (atheris, libFuzzer); it ends at the first finding."""
    room = Path(tempfile.mkdtemp())
    os.environ["STOPGRAD_CACHE"] = str(room / "cache")
    chosen = readers.READERS[reader]
    seeds = chosen.seeds(room)
    corpus = room / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds):
        (corpus / str(number)).write_bytes(content)

    def one(data: bytes) -> None:
        with contextlib.suppress(*readers.OWN):
            chosen.read(data, room)

    kept = keep or Path.cwd()
    kept.mkdir(parents=True, exist_ok=True)
    limits = [f"-runs={inputs}", f"-max_total_time={int(seconds)}", f"-timeout={int(MOST_SECONDS)}",
              "-rss_limit_mb=6000", "-max_len=65536", f"-artifact_prefix={kept}/{reader}-"]  # fmt: skip
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="+", choices=(*readers.READERS, "all"))
    parser.add_argument("--inputs", type=int, default=10_000, help="of each reader")
    parser.add_argument("--seconds", type=float, default=600, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs that found something")
    parser.add_argument("--out", type=Path, help="JSON to which the results are added, a row a reader and seed")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage, in this process")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work is not None:
        work(given.readers[0], given.seed, given.work, given.inputs, given.folder)
        return 0
    if given.atheris:
        guided(given.readers[0], given.inputs, given.seconds, given.keep)
        return 0
    failed = False
    for reader in readers.READERS if "all" in given.readers else given.readers:
        found = fuzz(reader, given.inputs, given.seconds, given.seed, given.keep)
        print(json.dumps(found), flush=True)
        if given.out:
            add_to(given.out, found)
        failed |= bool(found["findings"]) and not readers.READERS[reader].native
    if given.out:
        print(table(given.out))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
