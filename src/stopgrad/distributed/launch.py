"""Several processes on this machine for one run, started and monitored by the first."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NoReturn

from stopgrad.distributed.group import open_store
from stopgrad.distributed.rank import rank_variables
from stopgrad.distributed.watch import Ending
from stopgrad.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    LostProcessError,
    NonFiniteLossError,
    StopgradError,
    is_out_of_memory,
    topic_of,
    words_of,
)
from stopgrad.reporter import Reporter
from stopgrad.stop import SIGNALS

GRACE_SECONDS = 15.0
LAST_WORDS_SECONDS = 5.0
ERRORS = {
    kind.__name__: kind
    for kind in (
        StopgradError, ConfigError, DataError, CheckpointError, NonFiniteLossError, LostProcessError, Interrupted
    )
}  # fmt: skip
# The search path goes along, so that the child finds what the parent imports, and the command for the record.
PROGRAM = "import sys; sys.path[:] = {path!r}; sys.argv[:] = {argv!r}; from {module} import main; main()"


def launch(
    module: str, request: Mapping[str, Any], num_processes: int, reporter: Reporter, *, keep: Sequence[int] = ()
) -> None:
    """Run the `main` of a module in so many processes of this machine, each with its rank set, and wait for all.

    They are programs of their own, not copies of this one: a script or notebook that starts a run need not be
    importable. Each reads the request, a JSON object, from its standard input, and speaks in lines of JSON on its
    standard output (`answer`). SIGINT, SIGTERM and SIGUSR1 are handed on, so that every process saves and stops.
    Descriptors in `keep` stay open in each, such as those of locks.

    Raises:
        StopgradError: what the first process to fail raised, as it is.
    """
    store = open_store()
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    processes: list[Launched] = []
    received: list[int] = []

    def hand_on(number: int, _frame: object = None) -> None:
        received.append(number)
        for process in processes:
            # After a third signal there is no more waiting.
            process.send_signal(number if len(received) < 3 else signal.SIGKILL)

    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        for index in range(num_processes):
            variables = rank_variables(index, num_processes, store.port)
            processes.append(Launched(module, request, variables, messages, keep=keep))
        error = _listen(processes, messages, reporter)
    finally:
        for process in processes:
            process.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    codes = ", ".join(str(process.returncode) for process in processes)
    if isinstance(error, LostProcessError):
        raise LostProcessError(f"{error} Exit codes: {codes}.")
    if error is not None:
        raise error
    if any(process.returncode for process in processes):
        if received:
            raise Interrupted(f"by {signal.Signals(received[0]).name} before training began; resume starts over.")
        raise StopgradError(f"a training process ended without a message (exit codes {codes}).")


def answer(work: Callable[[dict[str, Any], Reporter], None]) -> NoReturn:
    """The other end of `launch`: do the work of the request, pass on what it says and raises, and exit at once.

    Threads that libraries have left running keep no process from ending.
    """
    # Whatever else prints goes to stderr, so that the lines stay JSON.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    Ending.say = lambda lost: _send(channel, {"error": "LostProcessError", "message": str(lost), "topic": lost.topic})
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    try:
        work(request, _Relay(channel))
    except (StopgradError, OSError) as error:
        kind = type(error) if isinstance(error, StopgradError) else StopgradError
        words = words_of(error) if isinstance(error, OSError) else str(error)
        _send(channel, {"error": kind.__name__, "message": words, "topic": topic_of(error)})
        _leave(kind.exit_code)
    except Exception as error:
        # Not one of ours: out of memory on a GPU, or a fault. Where it was goes to stderr, what it was to the parent.
        traceback.print_exc()
        message, topic = f"{type(error).__name__}: {error}", "out-of-memory" if is_out_of_memory(error) else ""
        _send(channel, {"error": StopgradError.__name__, "message": message, "topic": topic})
        _leave(StopgradError.exit_code)
    _leave(0)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _send(channel: IO[str], message: dict[str, Any]) -> None:
    # Where the parent is gone nobody listens, and saving goes before speaking.
    with suppress(OSError):
        channel.write(json.dumps(message) + "\n")
        channel.flush()


class _Relay:
    """A reporter whose words are said by the process that launched this one."""

    def __init__(self, channel: IO[str]) -> None:
        self._channel = channel
        self._last_sent = 0.0

    def say(self, text: str) -> None:
        self._send("say", text)

    def warn(self, text: str) -> None:
        self._send("warn", text)

    def progress(self, what: str, done: int, total: int, details: str = "") -> None:
        now = time.monotonic()
        if details or done >= total or now - self._last_sent >= 0.25:
            self._last_sent = now
            self._send("progress", what, done, total, details)

    def _send(self, call: str, *arguments: str | int) -> None:
        _send(self._channel, {"call": call, "arguments": arguments})


class Launched(subprocess.Popen[str]):
    """A process that does a request by the `main` of a module, which calls `answer`.

    Args:
        module, request: as for `launch`.
        variables: added to its environment.
        messages: what it says comes here, as it was sent: `{"call", "arguments"}` of the reporter, or `{"error",
            "message", "topic"}`.
        keep: descriptors that stay open in it.
    """

    def __init__(
        self, module: str, request: Mapping[str, Any], variables: Mapping[str, str],
        messages: "queue.SimpleQueue[dict[str, Any]]", *, keep: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__(
            [sys.executable, "-c", PROGRAM.format(path=sys.path, argv=sys.argv, module=module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
            # A session of its own: Ctrl-C on the terminal reaches the parent alone, which hands it on once.
            start_new_session=True,
            pass_fds=keep,
        )
        self._messages = messages
        self._reader = threading.Thread(target=self._read, name="stopgrad-reader", daemon=True)
        self._reader.start()
        assert self.stdin is not None
        # One that has ended already says so by its exit code.
        with suppress(BrokenPipeError):
            self.stdin.write(json.dumps(request) + "\n")
            self.stdin.flush()

    def hear_out(self) -> None:
        """After its end: return when all that it said is in `messages`."""
        # Not for ever: a process of its own may have outlived it, with the pipe in its hands.
        self._reader.join(LAST_WORDS_SECONDS)

    def close(self) -> None:
        """End it if it goes on, and close its pipes."""
        self.kill()
        self.wait()
        self.hear_out()
        assert self.stdin is not None
        with suppress(BrokenPipeError):
            self.stdin.close()

    def _read(self) -> None:
        assert self.stdout is not None
        with self.stdout as lines:
            for line in lines:
                try:
                    self._messages.put(json.loads(line))
                except ValueError:
                    # Printed by some library before `answer` took stdout away.
                    sys.stderr.write(line)


def _listen(
    processes: Sequence[Launched], messages: "queue.SimpleQueue[dict[str, Any]]", reporter: Reporter
) -> StopgradError | None:
    """Pass messages on until all have ended; when one fails the others are given a moment, then ended.

    Returns:
        The first error that came; one that says that another process failed counts only where that one says nothing.
    """
    first: StopgradError | None = None
    failed_at: float | None = None
    terminated = False

    def take(seconds: float) -> bool:
        nonlocal first
        try:
            message = messages.get(timeout=seconds)
        except queue.Empty:
            return False
        if "call" in message:
            getattr(reporter, message["call"])(*message["arguments"])
        else:
            kind = ERRORS[message["error"]]
            if first is None or (isinstance(first, LostProcessError) and kind is not LostProcessError):
                first = kind(message["message"], topic=message["topic"])
        return True

    while None in [process.poll() for process in processes]:
        take(0.2)
        if failed_at is None and any(process.returncode for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE_SECONDS:
            for process in processes:
                # A process that is stuck in a wait for the one that failed hears no signal but the last.
                process.kill() if terminated else process.terminate()
            failed_at, terminated = time.monotonic(), True
    for process in processes:
        process.hear_out()
    while take(0.0):
        pass
    return first


def _stop_with_the_parent() -> None:
    """Ask this process to save and stop when the one that launched it is gone: its end of the pipe closes."""
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)
