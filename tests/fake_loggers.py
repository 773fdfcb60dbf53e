"""Loggers that remember what they were told, and one that fails or waits where it is told to."""

import threading

CALLS = []
TROUBLE = {}
"""The name of a call -> what `Bad` does in it."""
NEVER = threading.Event()


class Good:
    def start(self, run, config, step):
        CALLS.append(("start", run.path.name, config, step))
        return "in memory"

    def log(self, step, values):
        CALLS.append(("log", step, values))

    def finish(self, state, summary):
        CALLS.append(("finish", state, summary))


class Bad:
    def __init__(self):
        self._come("import")

    def _come(self, call):
        TROUBLE.get(call, lambda: None)()

    def start(self, run, config, step):
        self._come("start")
        return ""

    def log(self, step, values):
        self._come("log")

    def finish(self, state, summary):
        self._come("finish")
