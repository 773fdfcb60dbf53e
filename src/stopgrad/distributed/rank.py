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
    """As torchrun (or our own launcher) set it, else SLURM's srun; a single process where nobody did."""
    _take_from_slurm()
    env = os.environ
    return Rank(int(env.get("RANK", 0)), int(env.get("WORLD_SIZE", 1)), int(env.get("LOCAL_RANK", 0)))


def num_restarts() -> int:
    """How often torchrun has started the processes of this run anew, because one of them had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def _take_from_slurm() -> None:
    """Set what torchrun would, of a job step with several tasks (`srun`); torchrun's own go before.

    A job step of one task, such as the shell of a batch script or torchrun itself, is a single process.
    """
    env = os.environ
    if "RANK" in env or int(env.get("SLURM_STEP_NUM_TASKS", 1)) < 2 or "SLURM_PROCID" not in env:
        return
    env["RANK"], env["WORLD_SIZE"] = env["SLURM_PROCID"], env["SLURM_STEP_NUM_TASKS"]
    env["LOCAL_RANK"] = env.get("SLURM_LOCALID", "0")
    env.setdefault("MASTER_ADDR", env.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
    # The same on all nodes, and another one for another job.
    env.setdefault("MASTER_PORT", str(20_000 + int(env.get("SLURM_JOB_ID", 0)) % 20_000))


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
