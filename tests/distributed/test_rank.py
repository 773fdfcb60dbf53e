import os
from unittest import mock

import pytest

from stopgrad.distributed.rank import Rank, current_rank

STEP = {
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
    "SLURM_JOB_ID": "12345678",
}  # fmt: skip
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "MASTER_ADDR": "there", "MASTER_PORT": "7"}


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, Rank()),
        (STEP, Rank(5, 8, 1)),
        (TORCHRUN, Rank(2, 3, 0)),
        ({**STEP, **TORCHRUN}, Rank(2, 3, 0)),
        # The shell of a batch script, and torchrun in a step of a task a node.
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, Rank()),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, Rank()),
    ],
)
def test_who_a_process_is(variables, rank):
    with mock.patch.dict(os.environ, variables, clear=True):
        assert current_rank() == rank
        if rank == Rank(5, 8, 1):
            assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("10.0.0.7", "25678")
        elif rank == Rank(2, 3, 0):
            assert os.environ["MASTER_PORT"] == "7"
