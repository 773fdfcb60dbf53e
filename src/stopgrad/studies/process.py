"""A cell in a process of its own: begun, listened to, and its result kept."""

import os
import queue
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.data import locks
from stopgrad.data.locks import FileLock
from stopgrad.errors import Interrupted
from stopgrad.hardware import usable_cores
from stopgrad.studies.cells import Cell, CellStore, on_device
from stopgrad.train.launch import Launched

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
        # By a signal that came from elsewhere, before or after training, it ends without a word.
        if self._asked_to_stop or self._process.returncode in (-signal.SIGTERM, -signal.SIGINT):
            return "stopped"
        self._hear()
        kind, words = self._error or ("StopgradError", f"ended without a word, exit code {self._process.returncode}")
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
    if not locks.AVAILABLE:
        return True, None
    try:
        store.run_dir.mkdir(parents=True, exist_ok=True)
        lock = locks.try_lock(store.lock_of(cell), create=True)
    except OSError:
        return True, None
    return lock is not None, lock
