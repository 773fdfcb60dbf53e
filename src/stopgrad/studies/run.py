"""Running what is missing of a study: cells side by side, each in a process of its own."""

import queue
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.data import locks
from stopgrad.data.locks import FileLock
from stopgrad.errors import Interrupted
from stopgrad.reporter import Reporter
from stopgrad.studies.cells import Cell, CellStore, on_device
from stopgrad.train.launch import GRACE_SECONDS, start
from stopgrad.train.stop import StopRequest

POLL_SECONDS = 0.2
WORKER = "stopgrad.studies.worker"


@dataclass
class _Running:
    """A cell that a process is at."""

    cell: Cell
    place: int
    process: "subprocess.Popen[str]"
    messages: "queue.SimpleQueue[dict[str, Any]]" = field(default_factory=queue.SimpleQueue)
    error: tuple[str, str] | None = None
    lock: FileLock | None = None
    """That nobody else is at it."""


@dataclass(frozen=True)
class Machine:
    """What the cells of a study run on.

    Args:
        jobs: cells side by side.
        devices: GPUs to spread them over; 0: the CPU.
    """

    jobs: int
    devices: int = 0

    def variables(self, place: int) -> dict[str, str]:
        """The environment of the process at one of the `jobs` places."""
        if not self.devices:
            return {"OMP_NUM_THREADS": "1"} if self.jobs > 1 else {}
        import os

        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name for name in listed.split(",") if name] or [str(i) for i in range(self.devices)]
        return {"CUDA_VISIBLE_DEVICES": names[place % self.devices]}


def run_cells(
    cells: Sequence[Cell], store: CellStore, data: str, machine: Machine, reporter: Reporter, *,
    time_limit_seconds: float = 0.0, when_done: Callable[[], None] = lambda: None,
) -> int:  # fmt: skip
    """Run cells, and keep the result of each as it ends; one that fails is recorded, and the rest go on.

    Args:
        cells: those to run.
        store: where results go.
        data: as `open_images` takes it.
        machine: what they run on.
        reporter: told of every cell that ends.
        time_limit_seconds: begin no more, and stop those at work with everything saved, after so long; 0: no limit.
        when_done: called after every cell.

    Returns:
        How many failed.

    Raises:
        Interrupted: by Ctrl-C, SIGTERM or the time limit; cells at work were saved and go on the next time.
    """
    waiting, running = list(reversed(cells)), list[_Running]()
    num_done = num_failed = 0
    told = False
    with StopRequest() as stop:
        if time_limit_seconds:
            stop.limit(time_limit_seconds)
        try:
            while (waiting or running) and stop.asked() is None:
                for cell in list(reversed(waiting)):
                    if len(running) >= machine.jobs:
                        break
                    free, lock = _claim(cell, store)
                    if not free:
                        continue
                    waiting.remove(cell)
                    if not _is_done(cell, store):
                        running.append(_begin(cell, _free_place(running), store, data, machine, lock))
                        continue
                    # By another command, since this one began.
                    num_done += 1
                    if lock is not None:
                        lock.close()
                if waiting and not running and not told:
                    told = True
                    reporter.say("Waiting for cells that another command is at ...")
                time.sleep(POLL_SECONDS)
                for one in list(running):
                    _hear(one)
                    if one.process.poll() is None:
                        continue
                    running.remove(one)
                    num_done += 1
                    num_failed += _keep(one, store)
                    reporter.progress("cells", num_done, len(cells), _words(one, store))
                    when_done()
        finally:
            _end(running)
            for one in [one for one in running if one.process.returncode == 0]:
                # It ended just before, or in spite of, the request to stop.
                running.remove(one)
                num_done += 1
                _keep(one, store)
            for one in running:
                _let_go(one)
        if (reason := stop.asked()) is not None and (waiting or running):
            raise Interrupted(
                f"by {reason}, {num_done} of {len(cells)} cells done, the others saved; the same command goes on."
            )
    return num_failed


def _free_place(running: Sequence[_Running]) -> int:
    taken = {one.place for one in running}
    return next(place for place in range(len(taken) + 1) if place not in taken)


def _claim(cell: Cell, store: CellStore) -> tuple[bool, FileLock | None]:
    """Whether nobody else is at the cell, and a lock on it where the file system has locks."""
    if not locks.AVAILABLE:
        return True, None
    try:
        store.run_dir.mkdir(parents=True, exist_ok=True)
        lock = locks.try_lock(store.lock_of(cell), create=True)
    except OSError:
        return True, None
    return lock is not None, lock


def _let_go(one: _Running) -> None:
    if one.lock is not None:
        one.lock.close()


def _is_done(cell: Cell, store: CellStore) -> bool:
    result = store.read(cell)
    return result is not None and "error" not in result


def _begin(
    cell: Cell, place: int, store: CellStore, data: str, machine: Machine, lock: FileLock | None
) -> _Running:  # fmt: skip
    cell = on_device(cell, devices=1, workers=0 if machine.jobs == 1 or machine.devices else 1)
    request = {
        "settings": cell.config.flat(), "data": data, "images": asdict(cell.images), "run": str(store.run_of(cell)),
        "processes": machine.jobs if not machine.devices else 1,
    }  # fmt: skip
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    process = start(WORKER, request, machine.variables(place), messages)
    return _Running(cell, place, process, messages, lock=lock)


def _hear(one: _Running) -> None:
    """Note an error. What a cell says and warns of is not passed on: its health is in its result."""
    while True:
        try:
            message = one.messages.get_nowait()
        except queue.Empty:
            return
        if "error" in message:
            one.error = message["error"], message["message"]


def _keep(one: _Running, store: CellStore) -> bool:
    """Write the result of a cell that ended, and let go of it; whether it failed."""
    try:
        return _write(one, store)
    finally:
        _let_go(one)


def _write(one: _Running, store: CellStore) -> bool:
    # The reader thread may be a little behind the process.
    deadline = time.monotonic() + 2
    while one.process.returncode and one.error is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        _hear(one)
    if one.process.returncode == 0:
        store.write(one.cell, RunDir(store.run_of(one.cell)).read_json("cell.json"))
        return False
    kind, words = one.error or ("StopgradError", f"ended without a word, exit code {one.process.returncode}")
    if kind == Interrupted.__name__:
        return False
    store.write(one.cell, {"error": f"{kind}: {words}"})
    return True


def _words(one: _Running, store: CellStore) -> str:
    result: Mapping[str, Any] = store.read(one.cell) or {"error": "stopped"}
    if "error" in result:
        return f"{one.cell.name}: FAILED: {result['error']}"
    seconds = result["cpu_seconds"]
    return f"{one.cell.name}: k-NN {result['knn_top1']:.1%}, linear {result['linear_top1']:.1%}, {seconds:.0f} s"


def _end(running: Sequence[_Running]) -> None:
    """Have the processes save and stop; those that do not are killed."""
    for one in running:
        if one.process.poll() is None:
            one.process.terminate()
    deadline = time.monotonic() + 2 * GRACE_SECONDS
    for one in running:
        try:
            one.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
