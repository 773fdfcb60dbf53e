"""Errors that the tests' own shape checker would anticipate, seen as a user without it sees them."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from stopgrad import GuidedStopGradientLoss

p, z = torch.randn(4, 2, 8), torch.randn(4, 2, 8)
criterion = GuidedStopGradientLoss()
for arguments in [(p, z[:, :, :4]), (p, z, torch.tensor([1, 0, 3])), (p, z, torch.tensor([1.0, 0.0, 3.0, 2.0]))]:
    try:
        criterion(*arguments)
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_shapes_that_do_not_fit_raise_value_errors_in_words():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "prediction (4, 2, 8) and target (4, 2, 4) differ in shape.",
        "partners of shape (3,): needs 4 whole numbers, one an image.",
        "partners of shape (4,): needs 4 whole numbers, one an image.",
    ]
