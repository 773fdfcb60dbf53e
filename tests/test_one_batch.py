"""Several processes compute what one computes."""

import equality
import numpy as np
import pytest
import torch
from recorder import Recorder

from stopgrad.distributed.launch import launch
from stopgrad.distributed.rank import Rank

CASES = {name: case for name, *case in equality.cases()}


@pytest.fixture(scope="module", params=[2, 3])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    launch("equality", {"folder": str(folder), "names": list(CASES)}, request.param, Recorder())
    return [dict(np.load(folder / f"{index}.npz")) for index in range(request.param)]


@pytest.fixture(scope="module")
def alone():
    torch.set_num_threads(1)
    return {name: equality.trained(*case, Rank()) for name, case in CASES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_processes_train_as_one_does(name, results, alone):
    losses, state = alone[name]
    assert np.isfinite(state).all()
    np.testing.assert_allclose(np.mean([result[f"{name} losses"] for result in results], axis=0), losses, rtol=1e-8)
    for result in results:
        np.testing.assert_allclose(result[f"{name} state"], state, rtol=1e-8, atol=1e-10)
