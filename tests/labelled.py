"""Small labelled images, and evaluations done by hand."""

import numpy as np
import torch

from stopgrad.data.sources import ArraySource
from stopgrad.loader.preprocess import Preprocess

WHOLE = Preprocess(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def images_of(labels, *, noise=40, seed=0, names=("ant", "bee", "cat"), spread=60):
    """Images of 8 x 8 pixels that tell their label by how bright some columns are."""
    rng = np.random.default_rng(seed)
    pixels = np.full((len(labels), 8, 8, 3), 60.0)
    for image, label in zip(pixels, labels, strict=True):
        if label >= 0:
            image[:, 2 * label : 2 * label + 2] += spread
    pixels += rng.normal(0, noise, (len(labels), 8, 8, 1))
    return ArraySource(pixels.clip(0, 255).astype(np.uint8), list(labels), list(names), "made")


def vectors_of(source):
    """Pixels of one channel, and labels."""
    images = [torch.from_numpy(np.atleast_3d(source.read(i))[:, :, 0].astype(np.float32)) for i in range(len(source))]
    return torch.stack(images).flatten(1) / 255, torch.tensor([source.label(i) for i in range(len(source))])


def knn_by_hand(bank, labels, queries, k, temperature, *, leave_out=False):
    """One query at a time, in float64."""
    bank = torch.nn.functional.normalize(bank.double(), dim=1)
    predicted = []
    for place, query in enumerate(torch.nn.functional.normalize(queries.double(), dim=1)):
        cosines = bank @ query
        if leave_out:
            cosines[place] = -2
        votes = torch.zeros(int(labels.max()) + 1, dtype=torch.float64)
        for index in cosines.argsort(descending=True)[:k]:
            votes[labels[index]] += (cosines[index] / temperature).exp()
        predicted.append(int(votes.argmax()))
    return torch.tensor(predicted)
