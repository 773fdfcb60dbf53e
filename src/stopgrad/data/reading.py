"""Reading and decoding the images of a source, in threads, results in order."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from stopgrad.data.decode import UnreadableImageError, decode
from stopgrad.data.sources import ImageSource

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


class UnreadImageError(UnreadableImageError):
    """An image whose bytes could not be read, which may pass."""


def read_image(source: ImageSource, index: int, shortest: int) -> np.ndarray:
    """Read and decode an image: uint8 `[height, width, 3]`, its shorter side reduced to `shortest`.

    Raises:
        UnreadImageError: it could not even be read.
        UnreadableImageError: it cannot be decoded.
    """
    try:
        data = source.read(index)
    except OSError as error:
        raise UnreadImageError(error.strerror or str(error)) from error
    return decode(data, shortest=shortest)


def spread(length: int, num: int) -> list[int]:
    """At most `num` indices below `length`, evenly spread, first and last among them."""
    return sorted({int(i) for i in np.linspace(0, length - 1, min(num, length))}) if length else []


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], *, ahead: int = 64
) -> Iterator[Any]:
    """`pool.map` with at most `ahead` results waiting; what has not begun when the caller leaves is dropped."""
    waiting: list[Future[Any]] = []
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()
