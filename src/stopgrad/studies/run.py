"""Running what is missing of a study: cells side by side."""

import time
from collections.abc import Callable, Sequence

from stopgrad.errors import Interrupted
from stopgrad.reporter import Reporter
from stopgrad.studies.cells import Cell, CellStore
from stopgrad.studies.process import CellProcess, Machine, claim
from stopgrad.train.launch import GRACE_SECONDS
from stopgrad.train.stop import StopRequest

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
            while not crew.is_idle and stop.asked() is None:
                crew.begin_more()
                time.sleep(POLL_SECONDS)
                # A signal may have reached the cells too: those that stop are not to be taken for failed.
                if stop.asked() is None:
                    crew.gather()
        finally:
            crew.stop()
        if not crew.is_done:
            raise Interrupted(
                f"by {stop.asked() or 'a signal to its cells'}, {crew.num_done} of {len(cells)} cells done, the others "
                "saved; the same command goes on."
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
            self.reporter.say("Waiting for cells that another command is at ...")

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
