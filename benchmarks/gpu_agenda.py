"""What a GPU is for, most valuable first: one sitting of it, to be called until it says that nothing is left.

    python benchmarks/gpu_agenda.py CIFAR10 --out studies --minutes 9

It begins with two minutes that check what no machine without a GPU can (`gpu_check.py`, kept in `OUT/gpu-check.json`;
nothing else runs until they pass, but by `--no-check`), and ends with the throughput of ResNet-18 and ResNet-50 by
batch size (`OUT/gpu-throughput.json`). Between them every entry is a study at full scale (CIFAR-10, ResNet-18). Cells
that are done are not run again, and a cell cut off by the end of a sitting goes on in the next one on the same disk.
After every sitting the results of each entry stand in `OUT/NAME-full-EPOCHS-epochs.json` (200 epochs:
`OUT/NAME-full.json`; of some arms `OUT/NAME-full-some.json`), complete or not (`complete`, `num_done`), with figure and
page beside it. To go on on another machine, take `OUT/cells` along, and `OUT/runs` for the cells that were cut off.

A GPU waits for the host (docs/cuda.md): `--jobs 3` and NVIDIA's Multi-Process Service make more of it.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import gpu_check
import torch

from stopgrad.cli.shared.console import ConsoleReporter
from stopgrad.errors import Interrupted, StopgradError
from stopgrad.hardware import choose_device
from stopgrad.reporter import Reporter
from stopgrad.studies.conduct import conduct, plan_study


@dataclass(frozen=True)
class Entry:
    """A study, how long its arms train, on how many seeds, and which of them; empty: all."""

    study: str
    epochs: int
    seeds: int
    arms: tuple[str, ...] = ()


HEADLINE = ("simsiam_symmetric_2v", "simsiam_gsg_4v")
AGENDA = (
    # The paper's headline in its own schedule, then the control that it lacks.
    Entry("claims", 200, 1, HEADLINE),
    Entry("claims", 200, 1, (*HEADLINE, "simsiam_random_4v")),
    Entry("main", 50, 1),
    Entry("no-predictor", 50, 1),
    Entry("main", 200, 1),
    Entry("no-predictor", 200, 1),
    Entry("main", 50, 3),
    Entry("main", 200, 3),
    Entry("guide", 50, 3),
    Entry("batch-size", 50, 3),
    Entry("stability", 50, 3),
)
LAST_MOMENT = 40.0
"""Seconds kept back for checkpoints and pages."""


def checked(out: Path, reporter: Reporter, *, tiny: bool) -> bool:
    """Whether this version of torch has passed the check on this kind of device, now or in an earlier sitting."""
    file, device = out / "gpu-check.json", choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    version = f"torch {torch.__version__} on {name}"
    if file.exists() and json.loads(file.read_text()).get("passed_by") == version:
        return True
    reporter.say(f"Checking {version} ...")
    found = gpu_check.check(device, tiny=tiny)
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found | {"passed_by": version if found["passed"] else None}, indent=1) + "\n")
    reporter.say(f"{'passed' if found['passed'] else 'FAILED'} in {found['seconds']:.0f} s: {file}")
    return found["passed"]


def time_steps(out: Path, reporter: Reporter, *, tiny: bool) -> None:
    """The throughput, once."""
    file = out / "gpu-throughput.json"
    if not file.exists():
        reporter.say("Timing steps by batch size ...")
        file.write_text(json.dumps(gpu_check.throughput(choose_device("auto"), tiny=tiny), indent=1) + "\n")
        reporter.say(f"{file}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="CIFAR-10: a parquet file or a folder; '' at the scale digits")
    parser.add_argument("--out", type=Path, default=Path("studies"))
    parser.add_argument("--minutes", type=float, default=9.0, help="how long this sitting is")
    parser.add_argument("--jobs", type=int, default=0, help="cells side by side; 0: one a GPU")
    parser.add_argument("--no-check", action="store_true", help="start with the studies")
    parser.add_argument("--retry", action="store_true", help="run cells again that failed")
    parser.add_argument("--scale", default="full", help="another scale, to try the agenda without a GPU")
    parser.add_argument("--epochs", type=int, default=0, help="other epochs, for the same")
    arguments = parser.parse_args()
    if not 60 * arguments.minutes > LAST_MOMENT:
        parser.error(f"--minutes {arguments.minutes:g}: {LAST_MOMENT:g} seconds are kept back, so it needs more.")
    if arguments.scale == "full" and not torch.cuda.is_available():
        print("no GPU here: at full scale this would take weeks.", file=sys.stderr)
        return 2
    ends = time.monotonic() + 60 * arguments.minutes - LAST_MOMENT
    failed: set[str] = set()
    tiny = arguments.scale != "full"
    with ConsoleReporter() as reporter:
        if not arguments.no_check and not checked(arguments.out, reporter, tiny=tiny):
            return 1
        for entry in AGENDA:
            plan = plan_study(
                entry.study, scale=arguments.scale, seeds=entry.seeds, epochs=arguments.epochs or entry.epochs,
                arms=entry.arms, data=arguments.data, out=arguments.out, jobs=arguments.jobs, retry=arguments.retry,
            )  # fmt: skip
            reporter.say(f"{entry}: {len(plan.cells) - len(plan.missing)} of {len(plan.cells)} cells done")
            failed |= {cell.key for cell in plan.failed}
            if not plan.missing and plan.results_file.exists():
                continue
            left = ends - time.monotonic()
            if left <= 0:
                return 3
            try:
                conduct(plan, arguments.data, command=" ".join(sys.argv), time_limit_seconds=left, reporter=reporter)
            except Interrupted as reason:
                reporter.say(f"stopped {reason}")
                return 3
            failed |= {cell.key for cell in plan.cells if "error" in (plan.store.read(cell) or {})}
        time_steps(arguments.out, reporter, tiny=tiny)
    print(
        f"nothing is left on the agenda{f', but {len(failed)} cells failed: --retry runs them again' if failed else ''}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StopgradError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
