"""Several processes on this machine for one run, started and listened to by the one that the user started."""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, NoReturn

from stopgrad.distributed import rank_variables
from stopgrad.errors import CheckpointError, ConfigError, DataError, Interrupted, NonFiniteLossError, StopgradError
from stopgrad.reporter import Reporter

GRACE_SECONDS = 15.0
ERRORS = {
    kind.__name__: kind
    for kind in (StopgradError, ConfigError, DataError, CheckpointError, NonFiniteLossError, Interrupted)
}
# The search path goes along, so that the child finds what the parent imports, and the command for the record.
PROGRAM = "import sys; sys.path[:] = {path!r}; sys.argv[:] = {argv!r}; from {module} import main; main()"


def launch(module: str, request: Mapping[str, Any], num_processes: int, reporter: Reporter) -> None:
    """Run the `main` of a module in so many processes of this machine, each with its rank set, and wait for all.

    They are programs of their own, not copies of this one: a script or notebook that starts a run need not be
    importable. Each reads the request, a JSON object, from its standard input, and speaks in lines of JSON on its
    standard output (`answer`). SIGINT and SIGTERM are handed on, so that every process saves and stops.

    Raises:
        StopgradError: what the first process to fail raised, as it is.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    processes = [
        start(module, request, rank_variables(index, num_processes, port), messages) for index in range(num_processes)
    ]
    asked: list[int] = []

    def hand_on(number: int, _frame: object = None) -> None:
        asked.append(number)
        for process in processes:
            if process.poll() is None:
                # Somebody who asks a third time does not want to wait.
                process.send_signal(number if len(asked) < 3 else signal.SIGKILL)

    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        error = _listen(processes, messages, reporter)
    finally:
        for process in processes:
            process.kill()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if error is not None:
        raise error
    if any(process.returncode for process in processes):
        if asked:
            raise Interrupted(f"by {signal.Signals(asked[0]).name} before training began; resume starts over.")
        codes = ", ".join(str(process.returncode) for process in processes)
        raise StopgradError(f"a training process ended without a word (exit codes {codes}).")


def answer(work: Callable[[dict[str, Any], Reporter], None]) -> NoReturn:
    """The other end of `launch`: do the work of the request, pass on what it says and raises, and exit."""
    # Whatever else prints goes to stderr, so that the lines stay JSON.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    try:
        work(request, _Relay(channel))
    except (StopgradError, OSError) as error:
        kind = type(error) if isinstance(error, StopgradError) else StopgradError
        _send(channel, {"error": kind.__name__, "message": str(error)})
        sys.exit(kind.exit_code)
    except Exception as error:
        # Not one of ours: out of memory on a GPU, or a fault. Where it was goes to stderr, what it was to the parent.
        traceback.print_exc()
        _send(channel, {"error": StopgradError.__name__, "message": f"{type(error).__name__}: {error}"})
        sys.exit(StopgradError.exit_code)
    sys.exit(0)


def _send(channel: IO[str], message: dict[str, Any]) -> None:
    # Where the parent is gone nobody listens, and saving goes before speaking.
    with contextlib.suppress(OSError):
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


def start(
    module: str, request: Mapping[str, Any], variables: Mapping[str, str], messages: queue.SimpleQueue[dict[str, Any]]
) -> "subprocess.Popen[str]":
    """Start a process that does a request by the `main` of a module, which calls `answer`.

    Args:
        module, request: as for `launch`.
        variables: added to its environment.
        messages: what it says comes here, as it was sent: `{"call", "arguments"}` of the reporter, or `{"error",
            "message"}`.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(path=sys.path, argv=sys.argv, module=module)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
        # A session of its own: Ctrl-C on the terminal reaches the parent alone, which hands it on once.
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    threading.Thread(target=_read, args=(process.stdout, messages), daemon=True).start()
    return process


def _read(lines: Iterable[str], messages: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in lines:
        messages.put(json.loads(line))


def _listen(
    processes: list["subprocess.Popen[str]"], messages: queue.SimpleQueue[dict[str, Any]], reporter: Reporter
) -> StopgradError | None:
    """Pass messages on until all have ended; when one fails the others are given a moment, then ended.

    Returns:
        The first error that came.
    """
    first: StopgradError | None = None
    failed_at: float | None = None
    terminated = False
    while True:
        ended = None not in [process.poll() for process in processes]
        try:
            message = messages.get(timeout=0.2)
        except queue.Empty:
            if ended:
                return first
            message = {}
        if "call" in message:
            getattr(reporter, message["call"])(*message["arguments"])
        elif "error" in message and first is None:
            first = ERRORS[message["error"]](message["message"])
        if failed_at is None and any(process.returncode for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE_SECONDS:
            for process in processes:
                # A process that is stuck in a wait for the one that failed hears no signal but the last.
                process.kill() if terminated else process.terminate()
            failed_at, terminated = time.monotonic(), True


def _stop_with_the_parent() -> None:
    """Ask this process to save and stop when the one that launched it is gone: its end of the pipe closes."""
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)
