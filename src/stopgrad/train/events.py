"""TensorBoard event files."""

from pathlib import Path
from typing import Any


class EventWriter:
    """Writes each number of a metrics line as a scalar."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an interrupted run wrote beyond its checkpoint is dropped by the viewer.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, line: dict[str, Any]) -> None:
        """Write one line of metrics.jsonl."""
        for name, value in line.items():
            if name != "step":
                self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()
