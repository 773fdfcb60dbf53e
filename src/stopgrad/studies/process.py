"""A cell in a process of its own: started, monitored, and its result stored."""

import os
import queue
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import stopgrad.caching as caching
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.caching import FileLock
from stopgrad.distributed.launch import GRACE_SECONDS, Launched
from stopgrad.errors import Interrupted
from stopgrad.hardware import usable_cores
from stopgrad.reporter import Reporter
from stopgrad.stop import StopRequest
from stopgrad.studies.cells import Cell, CellStore, on_device

WORKER = "stopgrad.studies.worker"
ALL_IMAGES = 10**9


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
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name for name in listed.split(",") if name] or [str(i) for i in range(self.devices)]
        return {"CUDA_VISIBLE_DEVICES": names[place % self.devices]}


class CellProcess:
    """A process that is at a cell.

    Args:
        cell: which.
        place: its number among those side by side.
        store: where the result goes.
        data: as `open_images` takes it.
        machine: what it runs on.
        lock: that nobody else is at the cell; None where there are no locks.
    """

    def __init__(
        self, cell: Cell, place: int, store: CellStore, data: str, machine: Machine, lock: FileLock | None
    ) -> None:  # fmt: skip
        self.place, self._store, self._lock = place, store, lock
        workers = 0 if machine.jobs == 1 else max(1, usable_cores() // machine.jobs)
        self.cell = on_device(cell, devices=1, workers=workers, final_images=ALL_IMAGES)
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._error: tuple[str, str] | None = None
        self._asked_to_stop = False
        request = {
            "settings": self.cell.config.flat(), "data": data, "images": asdict(cell.images),
            "run": str(store.run_of(cell)), "begun_on": str(store.begun_on(cell)), "processes": machine.jobs,
        }  # fmt: skip
        self._process = Launched(WORKER, request, machine.variables(place), self._messages)

    @property
    def has_ended(self) -> bool:
        """Whether there is a result, a failure or nothing to come."""
        self._hear()
        return self._process.poll() is not None

    def _hear(self) -> None:
        """Note an error. What a cell says and warns of is not passed on: its health is in its result."""
        while True:
            try:
                message = self._messages.get_nowait()
            except queue.Empty:
                return
            if "error" in message:
                self._error = message["error"], message["message"]

    def ask_to_stop(self) -> None:
        """Have it save and stop."""
        if self._process.poll() is None:
            self._asked_to_stop = True
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Give it so long to end, then kill it."""
        try:
            self._process.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def keep_result(self) -> str:
        """After its end: write the cell's result, or what it failed of, and let go of the cell.

        Returns:
            `done`, `failed`, or `stopped`: interrupted on request, with everything saved and nothing written here.
        """
        try:
            self._process.close()
            return self._keep()
        finally:
            if self._lock is not None:
                self._lock.close()

    def _keep(self) -> str:
        run = RunDir(self._store.run_of(self.cell))
        if self._process.returncode == 0:
            self._store.write(self.cell, run.read_json("cell.json"))
            # Not before the result is safe: without them it would have to be trained anew.
            for done_with in (run.checkpoint_dir, run.tensorboard_dir):
                shutil.rmtree(done_with, ignore_errors=True)
            return "done"
        # By a signal that came from elsewhere, before or after training, it ends without a message.
        if self._asked_to_stop or self._process.returncode in (-signal.SIGTERM, -signal.SIGINT):
            return "stopped"
        self._hear()
        kind, words = self._error or ("StopgradError", f"ended without a message, exit code {self._process.returncode}")
        if kind == Interrupted.__name__:
            return "stopped"
        self._store.write(self.cell, {"error": f"{kind}: {words}"})
        return "failed"

    @property
    def words(self) -> str:
        """What came of it, in a line."""
        result: Mapping[str, Any] = self._store.read(self.cell) or {"error": "stopped"}
        if "error" in result:
            return f"{self.cell.name}: FAILED: {result['error']}"
        scores = f"k-NN {result['knn_top1']:.1%}, linear {result['linear_top1']:.1%}"
        return f"{self.cell.name}: {scores}, {result['cpu_seconds']:.0f} s"


def claim(cell: Cell, store: CellStore) -> tuple[bool, FileLock | None]:
    """Whether nobody else is at the cell, and a lock on it where the file system has locks."""
    if not caching.AVAILABLE:
        return True, None
    try:
        store.run_dir.mkdir(parents=True, exist_ok=True)
        lock = caching.try_lock(store.lock_of(cell), create=True)
    except OSError:
        return True, None
    return lock is not None, lock


POLL_SECONDS = 0.2


def run_cells(
    cells: Sequence[Cell], store: CellStore, data: str, machine: Machine, reporter: Reporter, *,
    time_limit_seconds: float = 0.0, when_done: Callable[[], None] = lambda: None,
) -> int:  # fmt: skip
    """Run cells, and keep the result of each as it ends; one that fails is recorded, and the rest go on.

    Args:
        cells: those to run, in this order.
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
    crew = _Crew(cells, store, data, machine, reporter, when_done)
    with StopRequest() as stop:
        if time_limit_seconds:
            stop.limit(time_limit_seconds)
        try:
            while not crew.is_idle and stop.requested() is None:
                crew.begin_more()
                time.sleep(POLL_SECONDS)
                # A signal may have reached the cells too: those that stop are not to be taken for failed.
                if stop.requested() is None:
                    crew.gather()
        finally:
            crew.stop()
        if not crew.is_done:
            raise Interrupted(
                f"by {stop.requested() or 'a signal to its cells'}, {crew.num_done} of {len(cells)} cells done, the "
                "others saved; the same command resumes."
            )
    return crew.num_failed


class _Crew:
    """Cells that wait and cells at work."""

    def __init__(
        self, cells: Sequence[Cell], store: CellStore, data: str, machine: Machine, reporter: Reporter,
        when_done: Callable[[], None],
    ) -> None:  # fmt: skip
        self.store, self.data, self.machine, self.reporter, self.when_done = store, data, machine, reporter, when_done
        self.waiting, self.at_work = list(cells), list[CellProcess]()
        self.total, self.num_failed, self.num_stopped = len(cells), 0, 0
        self._failed_before = {cell.key for cell in cells if "error" in (store.read(cell) or {})}
        self._told_of_others = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to begin and nothing to wait for."""
        return not self.waiting and not self.at_work

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self.is_idle and not self.num_stopped

    @property
    def num_done(self) -> int:
        """Cells that have ended; not those that were stopped."""
        return self.total - len(self.waiting) - len(self.at_work) - self.num_stopped

    def begin_more(self) -> None:
        """Begin cells, as many as there are places for, but those that another command is at."""
        for cell in list(self.waiting):
            if len(self.at_work) >= self.machine.jobs:
                return
            is_free, lock = claim(cell, self.store)
            if not is_free:
                continue
            self.waiting.remove(cell)
            if self._was_done_meanwhile(cell):
                if lock is not None:
                    lock.close()
                continue
            taken = {one.place for one in self.at_work}
            place = next(place for place in range(self.machine.jobs) if place not in taken)
            self.at_work.append(CellProcess(cell, place, self.store, self.data, self.machine, lock))
        if self.waiting and not self.at_work and not self._told_of_others:
            self._told_of_others = True
            self.reporter.say("Waiting for cells that another command is running ...")

    def _was_done_meanwhile(self, cell: Cell) -> bool:
        """Whether another command has done it since this one began; an earlier failure is to be tried again."""
        result = self.store.read(cell)
        return result is not None and not ("error" in result and cell.key in self._failed_before)

    def gather(self) -> None:
        """Keep the results of cells that have ended."""
        for one in [one for one in self.at_work if one.has_ended]:
            self.at_work.remove(one)
            came_of_it = one.keep_result()
            self.num_failed += came_of_it == "failed"
            self.num_stopped += came_of_it == "stopped"
            self.reporter.progress("cells", self.num_done, self.total, one.words)
            self.when_done()

    def stop(self) -> None:
        """Have the cells at work save and stop; those that end with a result all the same are done."""
        for one in self.at_work:
            one.ask_to_stop()
        deadline = time.monotonic() + 2 * GRACE_SECONDS
        for one in list(self.at_work):
            one.wait(deadline - time.monotonic())
            came_of_it = one.keep_result()
            self.num_failed += came_of_it == "failed"
            if came_of_it != "stopped":
                self.at_work.remove(one)
