"""Every error that the user can fix; the command line maps each to an exit code."""

from collections.abc import Iterable
from difflib import get_close_matches


class StopgradError(Exception):
    """Base of the project's own errors: a message that gives the value, the rule and the way out.

    Args:
        *words: the message.
        topic: the section of docs/troubleshooting.md that says more, if there is one.
    """

    exit_code = 1
    topic = ""

    def __init__(self, *words: object, topic: str = "") -> None:
        super().__init__(*words)
        if topic:
            self.topic = topic


class ConfigError(StopgradError, ValueError):
    """A setting, recipe or flag that cannot be used as given (exit code 2)."""

    exit_code = 2


class DataError(StopgradError):
    """Images that are missing, unreadable or too few."""


class CheckpointError(StopgradError):
    """A checkpoint or run folder that is damaged, foreign or made by another config."""


class NonFiniteLossError(StopgradError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""

    topic = "loss-not-finite"


class LostProcessError(StopgradError):
    """Another of a run's processes has ended or does not answer. Why is for that one to say."""

    topic = "lost-processes"


class CollapsedError(StopgradError):
    """The features have collapsed or are not finite, and the caller asked to be told by an exit code."""

    topic = "collapsed"


class Interrupted(StopgradError):
    """Training stopped on request (Ctrl-C, SIGTERM, time limit) with everything saved (exit code 3)."""

    exit_code = 3


def words_of(error: OSError) -> str:
    """What a file system's error says, with the file where it is known."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def topic_of(error: BaseException | None) -> str:
    """The topic of an error, or of the one that it came from; empty where neither has one."""
    while error is not None:
        if topic := getattr(error, "topic", ""):
            return str(topic)
        error = error.__cause__
    return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, by Python's own error or by torch's for a GPU or a CPU."""
    return (
        isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "DefaultCPUAllocator" in str(error)
    )


def more(topic: str) -> str:
    """The last line of a message: where the documentation says more."""
    return f"More: docs/troubleshooting.md#{topic}"


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The end of an error message about an unknown `name`: the nearest valid name, or all of them."""
    names = sorted(valid)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"valid: {', '.join(names)}."
