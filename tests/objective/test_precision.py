"""Under autocast products of float32 are lowered to bf16: none of the objective's may be."""

import pytest
import torch
import torch.nn.functional as F

from stopgrad.objective.contrastive import info_nce, nt_xent
from stopgrad.objective.redundancy import barlow_twins, vicreg

COMPUTED = {
    "nt_xent": lambda first, second, bank: nt_xent(first, second, temperature=0.1),
    "info_nce": lambda first, second, bank: info_nce(first, second, F.normalize(bank, dim=1), temperature=0.1),
    "barlow_twins": lambda first, second, bank: barlow_twins(first, second),
    "vicreg": lambda first, second, bank: vicreg(first, second),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_values_and_gradients_are_those_without_autocast(name, generator):
    first = torch.randn(32, 16, generator=generator, requires_grad=True)
    second, bank = torch.randn(2, 32, 16, generator=generator)

    plain = COMPUTED[name](first, second, bank)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = COMPUTED[name](first, second, bank)
    torch.testing.assert_close(under, plain, rtol=0, atol=0)
    if plain.requires_grad:
        gradients = [torch.autograd.grad(loss, first)[0] for loss in (under, plain)]
        torch.testing.assert_close(*gradients, rtol=0, atol=0)
