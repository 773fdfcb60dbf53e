"""Every error that the user can fix; the command line maps each to an exit code."""

from collections.abc import Iterable
from difflib import get_close_matches


class StopgradError(Exception):
    """Base of the project's own errors: a message that gives the value, the rule and the way out."""

    exit_code = 1


class ConfigError(StopgradError, ValueError):
    """A setting, recipe or flag that cannot be used as given (exit code 2)."""

    exit_code = 2


class DataError(StopgradError):
    """Images that are missing, unreadable or too few."""


class CheckpointError(StopgradError):
    """A checkpoint or run folder that is damaged, foreign or made by another config."""


class NonFiniteLossError(StopgradError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


class LostProcessError(StopgradError):
    """Another of a run's processes has ended or does not answer. Why is for that one to say."""


class CollapsedError(StopgradError):
    """The features have collapsed or are not finite, and the caller asked to be told by an exit code."""


class Interrupted(StopgradError):
    """Training stopped on request (Ctrl-C, SIGTERM, time limit) with everything saved (exit code 3)."""

    exit_code = 3


def words_of(error: OSError) -> str:
    """What a file system's error says, with the file where it is known."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The end of an error message about an unknown `name`: the nearest valid name, or all of them."""
    names = sorted(valid)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"valid: {', '.join(names)}."
