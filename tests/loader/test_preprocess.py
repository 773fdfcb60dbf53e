import pytest
import torch

from stopgrad.cache.store import ImageStore
from stopgrad.data.sources import ListSource
from stopgrad.loader import preprocess as module
from stopgrad.loader.preprocess import Preprocess, plain_batches


@pytest.mark.parametrize("size", [8, 12])
def test_images_together_are_as_they_are_alone(rng, size, monkeypatch):
    images = [rng.integers(0, 256, (10, 14, 3), dtype="uint8") for _ in range(9)]
    preprocess = Preprocess(size, size, (0.5,) * 3, (0.2,) * 3)
    store = ImageStore(ListSource(images), preprocess.shortest, kept=list(range(9)))
    together = torch.cat([batch for _, batch in plain_batches(store, preprocess, batch_size=4)])
    monkeypatch.setattr(module, "AT_ONCE_BYTES", 0)
    alone = torch.cat([batch for _, batch in plain_batches(store, preprocess, batch_size=4)])
    assert torch.equal(together, alone)
    assert torch.equal(alone[3], preprocess(images[3]))
