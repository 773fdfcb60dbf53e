"""Atomically written files, and the names of checkpoints; without torch."""

import errno
import os
import re
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Any

_NAME = re.compile(r"step-(\d{8,})\.ckpt")
_TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")


def write_atomically(path: Path, write: Any) -> None:
    """Call `write(temporary_path)`, then put the file in place: a reader sees the old one or the new, whole.

    Its permissions are the user's, by the umask, whatever `write` sets.

    Raises:
        OSError: it cannot be written; `filename` is `path`, and what was there before is untouched.
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
    except OSError as error:
        # A write that fails does not say to which file, and nobody knows the temporary one.
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        # On a disk that became read-only it stays.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporaries_in(folder: Path, names: Container[str] | None = None) -> list[Path]:
    """What `write_atomically` has not put in place, of files of these names; None: of any."""
    found = [(match, path) for path in folder.glob(".*.tmp") if (match := _TEMPORARY.fullmatch(path.name))]
    return [path for match, path in found if names is None or match[1] in names]


def checkpoint_path(folder: Path, step: int) -> Path:
    """The name of a step's checkpoint."""
    return folder / f"step-{step:08d}.ckpt"


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    found = [(int(m[1]), p) for p in folder.glob("step-*.ckpt") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, reverse=True)]
