"""Contrastive losses: positives against explicit negatives."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stopgrad.objective.cosine import directions, product


def nt_xent(
    first: Float[Tensor, "image dim"], second: Float[Tensor, "image dim"], *, temperature: float
) -> Float[Tensor, ""]:
    """Normalised temperature-scaled cross entropy: of all other views of the batch, which is the image's own?

    Args:
        first, second: projections of two views of each image, any scale; at least 2 images. Gradients reach both.
        temperature: of the softmax over cosines, above 0.

    Returns:
        A float32 scalar, mean over the 2 x image views.

    Source: SimCLR (arXiv 2002.05709), equation 1.
    """
    num_images = len(first)
    views = directions(torch.cat((first, second)))
    logits = product(views, views.T) / temperature
    logits.fill_diagonal_(-torch.inf)
    positives = torch.arange(2 * num_images, device=views.device).roll(num_images)
    return F.cross_entropy(logits, positives)


def info_nce(
    prediction: Float[Tensor, "image dim"], target: Float[Tensor, "image dim"], negatives: Float[Tensor, "bank dim"],
    *, temperature: float,
) -> Float[Tensor, ""]:  # fmt: skip
    """Of the image's own target and a bank of others' targets, which is its own?

    Args:
        prediction: projections of one view of each image, any scale.
        target: projections of another view; no gradient reaches them.
        negatives: normalised projections of other images; no gradient reaches them.
        temperature: of the softmax over cosines, above 0.

    Returns:
        A float32 scalar, mean over images.

    Source: MoCo (arXiv 1911.05722), equation 1.
    """
    prediction = directions(prediction)
    target = directions(target.detach())
    own = (prediction * target).sum(dim=1, keepdim=True)
    logits = torch.cat((own, product(prediction, negatives.detach().T)), dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))
