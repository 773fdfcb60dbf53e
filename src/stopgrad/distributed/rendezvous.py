"""How the processes of a run find each other, and whether they are of one kind."""

import hashlib
import json
import os
import socket
import time
import uuid
from datetime import timedelta
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError, LostProcessError

JOINING = timedelta(minutes=10)
"""So long the processes wait for each other before they have met."""
POLL_SECONDS = 0.05


def meet(rank: Rank) -> tuple[Store, list[str]]:
    """Wait until all processes are there -> (their store, what to call them: host and process number).

    Raises:
        ConfigError: no address to meet at, a port that is taken, or processes with other versions than the first.
        LostProcessError: one does not come.
    """
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    minutes = f"{JOINING.total_seconds() / 60:g} minutes"
    try:
        store: Store = next(dist.rendezvous("env://", timeout=JOINING))[0]  # type: ignore[attr-defined]
    except ValueError as error:
        raise ConfigError(
            f"process {rank.index} of {rank.world} has no address to meet the others at: {error}"
        ) from error
    except dist.DistStoreError as error:
        raise LostProcessError(
            f"not all {rank.world} processes came to {where} within {minutes} ({_first_line(error)}). Were all "
            "started, and may their machines connect to that address?"
        ) from error
    except dist.DistNetworkError as error:
        if "EADDRINUSE" in str(error):
            raise ConfigError(
                f"port {os.environ.get('MASTER_PORT')} is in use on this machine, perhaps by a run that has not ended: "
                "set MASTER_PORT to another one (torchrun: --master-port, or --rdzv-endpoint)."
            ) from error
        raise LostProcessError(
            f"process {rank.index} of {rank.world} found nobody at {where} within {minutes} ({_first_line(error)}). "
            "Was process 0 started there, and may this machine connect to it?"
        ) from error
    try:
        own = _own_part(store, rank)
        introductions = _introduced(own, rank)
    except _MissingError as missing:
        raise LostProcessError(
            f"of {rank.world} processes {missing} did not come to {where} within {minutes}. Were all started, and may "
            "their machines connect to that address?"
        ) from missing
    names = [f"{there['host']}, pid {there['pid']}" for there in introductions]
    for index, there in enumerate(introductions):
        for what, version in there["versions"].items():
            if version != (first := introductions[0]["versions"][what]):
                raise ConfigError(
                    f"process {index} of {rank.world} ({names[index]}) has {what} {version}, process 0 ({names[0]}) "
                    f"{first}: all need the same."
                )
    return own, names


class _MissingError(Exception):
    """Processes that did not come."""


def _own_part(store: Store, rank: Rank) -> Store:
    """A part of the store that nobody has written to before.

    That of torchrun's agents still has what processes wrote before they were started anew, which nothing in their
    environment tells on all machines alike. So each asks the first by a name of its own where to meet.
    """
    name = uuid.uuid4().hex
    if not rank.leads:
        store.set(f"stopgrad {rank.index} asks", name)
        try:
            store.wait([f"stopgrad answers {name}"], JOINING)
        except RuntimeError as error:
            raise _MissingError("0") from error
        return PrefixStore(store.get(f"stopgrad answers {name}").decode(), store)
    own, end = PrefixStore(name, store), time.monotonic() + JOINING.total_seconds()
    while missing := [index for index in range(1, rank.world) if not own.check([_key(index)])]:
        for index in missing:
            if store.check([f"stopgrad {index} asks"]):
                store.set(f"stopgrad answers {store.get(f'stopgrad {index} asks').decode()}", name)
        if time.monotonic() > end:
            raise _MissingError(", ".join(map(str, missing)))
        time.sleep(POLL_SECONDS)
    return own


def _introduced(own: Store, rank: Rank) -> list[dict[str, Any]]:
    """What each process says of itself."""
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "versions": versions()}
    keys = [_key(index) for index in range(rank.world)]
    own.set(keys[rank.index], json.dumps(mine))
    try:
        own.wait(keys, JOINING)
    except RuntimeError as error:
        missing = [str(index) for index, key in enumerate(keys) if not own.check([key])]
        raise _MissingError(", ".join(missing)) from error
    return [json.loads(text) for text in own.multi_get(keys)]


def _key(index: int) -> str:
    return f"stopgrad process {index}"


@cache
def versions() -> dict[str, str]:
    """Of what all processes must have in the same version; of this program the source itself is compared."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    try:
        own = metadata.version("stopgrad")
    except metadata.PackageNotFoundError:
        own = "not installed"
    return {"stopgrad": f"{own} (source {digest.hexdigest()[:8]})", "torch": str(torch.__version__)}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
