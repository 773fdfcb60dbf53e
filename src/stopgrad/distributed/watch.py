"""Which process hangs: each gives a sign of life, says whether it waits for the others, and watches them.

Clocks play no part. A process counts its own looks at the others, which it takes at a steady pace, so that nothing is
found where the whole job was suspended and goes on.
"""

import faulthandler
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

from torch.distributed import Store  # type: ignore[attr-defined]

from stopgrad.distributed.rank import Rank
from stopgrad.errors import LostProcessError

WORKS, WAITS, ALONE, LEFT = "works", "waits", "alone", "left"
LOOKS = 10
"""A process looks at the others so many times in `hang_seconds`, or every five seconds."""
MOST_SECONDS = 5.0


class _Here:
    """Where this process stands."""

    state, changes = WORKS, 0


@contextmanager
def being(state: str) -> Iterator[None]:
    """Within, this process `waits` for others, or does what others do not wait for in messages (`alone`)."""
    before = _Here.state
    _Here.state, _Here.changes = state, _Here.changes + 1
    try:
        yield
    finally:
        _Here.state, _Here.changes = before, _Here.changes + 1


def _print(error: LostProcessError) -> None:
    print(f"stopgrad: error: {error}", file=sys.stderr, flush=True)


class Ending:
    """How this process ends when another one hangs: its main thread cannot, as it waits inside torch or a driver."""

    say: Callable[[LostProcessError], None] = staticmethod(_print)
    """Where the reason goes; `answer` sends it to the process that launched this one."""

    @classmethod
    def end(cls, error: LostProcessError) -> NoReturn:
        """Say why, and end at once."""
        cls.say(error)
        os._exit(error.exit_code)


@dataclass
class _Seen:
    """What is known of a process, and at how many looks in a row it was the same."""

    sign: str = ""
    stand: str = ""
    silent: int = 0
    still: int = 0

    def look(self, text: str) -> None:
        sign, stand = text.split(" ", 1)
        self.silent = self.silent + 1 if sign == self.sign else 0
        self.still = self.still + 1 if stand == self.stand else 0
        self.sign, self.stand = sign, stand

    @property
    def state(self) -> str:
        return self.stand.split(" ")[0]


def find_hanging(seen: Sequence[_Seen], looks: int) -> tuple[list[int], str]:
    """The processes that hang, and how: those without a sign of life, else those that others have waited for.

    Args:
        seen: what is known of each.
        looks: at so many in a row nothing has changed.
    """
    silent = [index for index, one in enumerate(seen) if one.silent >= looks and one.state != LEFT]
    if silent:
        return silent, "given no sign of life"
    if any(one.state == WAITS and one.still >= looks for one in seen):
        missing = [i for i, one in enumerate(seen) if one.state in (WORKS, LEFT) and one.still >= looks]
        return missing, "kept the others waiting"
    return [], ""


@contextmanager
def watched(store: Store, rank: Rank, names: Sequence[str], hang_seconds: float) -> Iterator[None]:
    """Within, a thread of this process watches the others; a process that hangs ends the run and is named.

    Args:
        store: of all processes, with a connection of its own.
        rank: which of how many processes this is.
        names: what to call them.
        hang_seconds: so long may one give no sign of life, or keep the others waiting.
    """
    seconds, ended = min(MOST_SECONDS, hang_seconds / LOOKS), threading.Event()
    looks: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
    _put(store, rank, 0)
    # The store does not answer where the process that keeps it hangs, and has no time limit of its own.
    looking = threading.Thread(target=_look, args=(store, rank, seconds, ended, looks), daemon=True)
    finding = threading.Thread(target=_find, args=(looks, rank, names, hang_seconds, seconds), daemon=True)
    looking.start()
    finding.start()
    try:
        yield
    finally:
        with being(LEFT):
            ended.set()
            looking.join(MOST_SECONDS)


def _look(
    store: Store, rank: Rank, seconds: float, ended: threading.Event, looks: "queue.SimpleQueue[list[str] | None]"
) -> None:
    """Give a sign of life and see those of the others, again and again; None at the end."""
    keys, sign = [_key(index) for index in range(rank.world)], 0
    # Where the process that keeps the store has ended, there is nothing to see; a message will miss it.
    with suppress(RuntimeError):
        while not ended.wait(seconds):
            sign += 1
            _put(store, rank, sign)
            # Not before all have begun to watch.
            signs = store.multi_get(keys) if store.check(keys) else []
            looks.put([text.decode() for text in signs])
        # One that has left is missed by nobody.
        _put(store, rank, sign + 1)
    looks.put(None)


def _find(
    looks: "queue.SimpleQueue[list[str] | None]", rank: Rank, names: Sequence[str], hang_seconds: float, seconds: float
) -> None:
    """End this process when what was seen tells of one that hangs."""
    seen, most, missed = [_Seen() for _ in range(rank.world)], round(hang_seconds / seconds), 0
    kept_by_first = "TORCHELASTIC_USE_AGENT_STORE" not in os.environ
    while True:
        try:
            signs = looks.get(timeout=seconds)
        except queue.Empty:
            missed += 1
            if missed >= most and kept_by_first:
                Ending.end(_error([0], "not answered", rank, names, hang_seconds))
            continue
        if signs is None:
            return
        missed = 0
        for one, text in zip(seen, signs, strict=False):
            one.look(text)
        hanging, how = find_hanging(seen, most)
        if hanging:
            if rank.index in hanging:
                # Where it hangs.
                faulthandler.dump_traceback()
            Ending.end(_error(hanging, how, rank, names, hang_seconds))


def _error(hanging: Sequence[int], how: str, rank: Rank, names: Sequence[str], seconds: float) -> LostProcessError:
    some = ", ".join(f"{index} ({names[index]})" for index in hanging)
    one = len(hanging) == 1
    return LostProcessError(
        f"training process{'' if one else 'es'} {some} of {rank.world} {'has' if one else 'have'} {how} for "
        f"{seconds:g} seconds (hang_seconds = {seconds:g}), so the run ends. Checkpoints are intact: resume goes on "
        "from the newest."
    )


def _key(index: int) -> str:
    return f"stopgrad sign of {index}"


def _put(store: Store, rank: Rank, sign: int) -> None:
    store.set(_key(rank.index), f"{sign} {_Here.state} {_Here.changes}")
