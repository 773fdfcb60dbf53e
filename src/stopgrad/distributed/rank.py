"""Which of how many processes this is; without torch."""

import os
import socket
from dataclasses import dataclass

LOOPBACKS = ("lo", "lo0")


@dataclass(frozen=True)
class Rank:
    """Which of how many processes this is."""

    index: int = 0
    world: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.index == 0


def current_rank() -> Rank:
    """As torchrun (or our own launcher) set it; a single process where nobody did."""
    env = os.environ
    return Rank(int(env.get("RANK", 0)), int(env.get("WORLD_SIZE", 1)), int(env.get("LOCAL_RANK", 0)))


def rank_variables(index: int, world: int, port: int) -> dict[str, str]:
    """What `current_rank` and torch read, for a process of this machine."""
    variables = {
        "RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    # By default gloo talks over whatever address the machine's name resolves to, which may not be reachable.
    loopback = [name for _, name in socket.if_nameindex() if name in LOOPBACKS]
    if loopback and "GLOO_SOCKET_IFNAME" not in os.environ:
        variables["GLOO_SOCKET_IFNAME"] = loopback[0]
    return variables
