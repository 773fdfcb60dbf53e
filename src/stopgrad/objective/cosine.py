"""Negative cosine similarity with the stop-gradient on the target."""

import torch
from jaxtyping import Float
from torch import Tensor

NO_LENGTH = 1e-12


def at_least_fp32(tensor: Tensor) -> Tensor:
    """Lift half precisions to float32; float32 and float64 stay as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def directions(vectors: Float[Tensor, "*image dim"]) -> Float[Tensor, "*image dim"]:
    """Each vector divided by its length; float32 at least.

    One of no length (below 1e-12) has no direction: it becomes zero and gets no gradient. `F.normalize` gives it one of
    10^12 times the others', by which a run whose projections collapse to zero ends in NaN.
    """
    vectors = at_least_fp32(vectors)
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.masked_fill(length < NO_LENGTH, torch.inf)


def product(first: Float[Tensor, "row dim"], second: Float[Tensor, "dim column"]) -> Float[Tensor, "row column"]:
    """Matrix product in the inputs' own precision; autocast would lower that of float32."""
    with torch.autocast(first.device.type, enabled=False):
        return first @ second


def negative_cosine(
    prediction: Float[Tensor, "*image dim"], target: Float[Tensor, "*image dim"]
) -> Float[Tensor, "*image"]:
    """Distance D(p, z) = -cos(p, stop_gradient(z)), one value an image.

    Computed in float32 or wider whatever the inputs' precision, also under autocast. No gradient reaches
    `target`. A zero vector counts as orthogonal to everything, and gets no gradient.

    Args:
        prediction: predictor outputs `[..., dim]`; any leading axes.
        target: projections of the same shape.

    Returns:
        Values in [-1, 1]; -1 is full agreement.

    Source: SimSiam (arXiv 2011.10566), equation 1.
    """
    return -(directions(prediction) * directions(target.detach())).sum(dim=-1)
