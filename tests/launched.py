"""A module that the launcher's tests start as several processes."""

import errno
import os
import signal
import sys
import threading
import time

from stopgrad.distributed.launch import answer
from stopgrad.errors import DataError, Interrupted


def main():
    print("printed before the work")
    answer(work)


def work(request, reporter):
    rank = int(os.environ["RANK"])
    if request["do"] == "speak":
        print("this is no message")
        reporter.say(f"rank {rank} of {os.environ['WORLD_SIZE']}, {sys.argv[1:]}")
        reporter.progress("work", 1, 2, "half")
        reporter.warn("look out")
    elif request["do"] == "speak much":
        for number in range(3000):
            reporter.say(f"{rank}: {number}")
        # It outlives this process and has its pipe.
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    elif request["do"] == "hang at the end":
        threading.Thread(target=time.sleep, args=(60,)).start()
    elif request["do"] == "fail":
        if rank == 1:
            raise DataError("rank 1 has no data", topic="no-images")
        time.sleep(60)
    elif request["do"] == "fill the disk":
        raise OSError(errno.ENOSPC, "No space left on device", "/runs/a/summary.json")
    elif request["do"] == "die":
        os._exit(7)
    elif request["do"] == "wait":
        stopped = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: stopped.append(number))
        reporter.say(f"pid {os.getpid()}")
        while not stopped:
            time.sleep(0.05)
        time.sleep(0.3)  # a second signal would come by now
        with open(request["note"] + str(rank), "w") as file:
            file.write(" ".join(signal.Signals(n).name for n in stopped))
        raise Interrupted(f"by {len(stopped)} signal")
