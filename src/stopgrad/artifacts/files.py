"""Atomically written files, and the names of checkpoints; without torch."""

import os
import re
from pathlib import Path
from typing import Any

_NAME = re.compile(r"step-(\d{8,})\.ckpt")


def write_atomically(path: Path, write: Any) -> None:
    """Call `write(temporary_path)`, then put the file in place: a reader sees the old one or the new, whole.

    Its permissions are the user's, by the umask, whatever `write` sets.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # The umask can be asked for only by setting it, for all threads.
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """The name of a step's checkpoint."""
    return folder / f"step-{step:08d}.ckpt"


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    found = [(int(m[1]), p) for p in folder.glob("step-*.ckpt") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, reverse=True)]
