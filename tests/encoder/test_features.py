import pytest
import torch
from labelled import WHOLE, images_of, vectors_of

from stopgrad.encoder.features import features_of, num_not_finite
from stopgrad.errors import ConfigError

CPU = torch.device("cpu")


class Gaps:
    """Images of which some cannot be read."""

    def __init__(self, source, broken):
        self.source, self.broken, self.class_names = source, broken, source.class_names

    def __len__(self):
        return len(self.source)

    def read(self, index):
        return b"no image" if index in self.broken else self.source.read(index)

    def label(self, index):
        return self.source.label(index)

    def name(self, index):
        return self.source.name(index)


def first_channel(images):
    return images[:, 0].flatten(1)


@pytest.mark.parametrize("broken", [(), (0, 1, 2, 3, 9)])
def test_rows_are_those_of_the_readable_images(broken):
    source = images_of([0, 1, 2] * 5)
    found = features_of(first_channel, WHOLE, Gaps(source, broken), CPU, batch_size=4)
    kept = [i for i in range(15) if i not in broken]
    vectors, labels = vectors_of(source)
    assert torch.allclose(found.vectors, vectors[kept], atol=1e-6)
    assert torch.equal(found.labels, labels[kept])
    assert len(found.skipped) == len(broken)


def test_a_network_that_returns_too_few_rows():
    with pytest.raises(ConfigError, match=r"returned \(1, 64\) for 4 images: needs \(4, 64\), a row an image"):
        features_of(lambda images: first_channel(images)[:1], WHOLE, images_of([0, 1] * 2), CPU)


def test_images_not_finite_are_counted_once():
    vectors = torch.zeros(20000, 3)
    vectors[5, :2], vectors[15000, 1] = torch.nan, -torch.inf
    assert num_not_finite(vectors) == 2
