"""Which process hangs: each gives a sign of life, says whether it waits for the others, and watches them.

Clocks play no part. A process counts its own looks at the others, which it takes at a steady pace, so that nothing is
found where the whole job was suspended and goes on.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    ended = threading.Event()
    arguments = (store, rank, names, hang_seconds, ended)
    _put(store, rank, 0)
    thread = threading.Thread(target=_watch, args=arguments, name="stopgrad-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with being(LEFT):
            ended.set()
            thread.join(MOST_SECONDS)


def _watch(store: Store, rank: Rank, names: Sequence[str], hang_seconds: float, ended: threading.Event) -> None:
    seconds = min(MOST_SECONDS, hang_seconds / LOOKS)
    seen = [_Seen() for _ in range(rank.world)]
    keys, sign = [_key(index) for index in range(rank.world)], 0
    while not ended.wait(seconds):
        sign, begun = sign + 1, time.monotonic()
        try:
            _put(store, rank, sign)
            # Not before all have begun to watch.
            signs = store.multi_get(keys) if store.check(keys) else []
        except RuntimeError:
            if "TORCHELASTIC_USE_AGENT_STORE" not in os.environ and time.monotonic() - begun >= hang_seconds / 2:
                Ending.end(_error([0], "not answered", rank, names, hang_seconds))
            # Who keeps the store has ended, or is no process of the run.
            return
        for one, text in zip(seen, signs, strict=False):
            one.look(text.decode())
        hanging, how = find_hanging(seen, round(hang_seconds / seconds))
        if hanging:
            if rank.index in hanging:
                # Where it hangs.
                faulthandler.dump_traceback()
            Ending.end(_error(hanging, how, rank, names, hang_seconds))
    # One that has left is missed by nobody.
    _put_last(store, rank, sign + 1)


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


def _put_last(store: Store, rank: Rank, sign: int) -> None:
    try:
        _put(store, rank, sign)
    except RuntimeError:
        return
