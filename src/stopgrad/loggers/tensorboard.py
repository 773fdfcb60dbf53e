"""TensorBoard: event files in the run folder."""

from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.loggers.protocol import numbers_of


class TensorBoard:
    """Each number is a scalar; config, verdict and state are texts."""

    def start(self, run: RunDir, config: Mapping[str, Any], step: int) -> str:
        """Open an event file in `RUN/tensorboard`."""
        # What an interrupted run wrote beyond its checkpoint is dropped by the viewer.
        self._writer = SummaryWriter(str(run.tensorboard_dir), purge_step=step + 1)
        self._step = step
        if step == 0:
            self._writer.add_text("config", "\n".join(f"    {name} = {value!r}" for name, value in config.items()), 0)
        return ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write a scalar for each number."""
        self._step = step
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, state: str, summary: Mapping[str, Any]) -> None:
        """Write the summary and close the file."""
        for name, value in numbers_of(summary).items():
            self._writer.add_scalar(f"summary/{name}", value, self._step)
        self._writer.add_text("state", state, self._step)
        if summary:
            self._writer.add_text("verdict", summary["verdict_words"], self._step)
        self._writer.close()
