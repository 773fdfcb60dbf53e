"""Results computed ahead of their use."""

import queue
import threading
from collections.abc import Generator
from contextlib import closing, suppress
from typing import TypeVar

T = TypeVar("T")


def prepared_ahead(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """The items in order, made in a thread of its own up to `depth` ahead; closing this ends the thread.

    An error in making an item is raised in its place.
    """
    ready: queue.Queue[T | BaseException | None] = queue.Queue(depth)
    ended = threading.Event()

    def put(item: T | BaseException | None) -> None:
        while not ended.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                break

    def prepare() -> None:
        try:
            with closing(items):
                for item in items:
                    put(item)
                    if ended.is_set():
                        return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=prepare, name="stopgrad-loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        thread.join()
