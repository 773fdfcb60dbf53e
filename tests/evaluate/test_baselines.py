import torch

from stopgrad.evaluate.shared.baselines import fresh_network
from stopgrad.weights.spec import EncoderSpec

SPEC = EncoderSpec("resnet10_16", "small", 128, 8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_a_fresh_network_is_a_function_of_the_seed_alone():
    before = torch.random.get_rng_state()
    first = fresh_network(SPEC, 0).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(1)
    again, other = (fresh_network(SPEC, seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
