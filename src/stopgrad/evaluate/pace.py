"""How fast training goes and how long it will take yet, in words."""

import time


class Pace:
    """A clock that starts when it is made.

    Args:
        total: steps to come.
    """

    def __init__(self, total: int) -> None:
        self.total, self._began, self._images = total, time.perf_counter(), 0

    def add(self, images: int) -> None:
        """So many images more are done."""
        self._images += images

    def is_due(self, done: int) -> bool:
        """Whether to tell of it after `done` steps: some hundred times in all, since asking a device makes it wait."""
        return done == self.total or done * 200 // self.total != (done - 1) * 200 // self.total

    def images_per_second(self) -> float:
        """Since the start."""
        return self._images / max(time.perf_counter() - self._began, 1e-9)

    def words(self, done: int) -> str:
        """Speed, and the time left if it goes on like this."""
        seconds = time.perf_counter() - self._began
        left = seconds / max(done, 1) * (self.total - done)
        speed = f"{self.images_per_second():,.0f} images/s"
        return f"{speed}, {_duration(left)} left" if done < self.total else f"{speed}, {_duration(seconds)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
