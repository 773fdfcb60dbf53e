"""Learning-rate schedules: a step's share of the peak."""

import math


def cosine(step: float, total_steps: float) -> float:
    """Half a cosine, from 1 at step 0 down to 0 at `total_steps`.

    Source: SGDR (arXiv 1608.03983), equation 5, without restarts.
    """
    return (1 + math.cos(math.pi * step / max(1.0, total_steps))) / 2


def warmup_cosine(step: int, total_steps: int, warmup_steps: float = 0.0) -> float:
    """Linear rise to 1 over the warm-up, then half a cosine down to 0 over the rest.

    Args:
        step: from 0 to `total_steps` - 1.
        total_steps: length of training, above `warmup_steps`.
        warmup_steps: length of the rise, which may end between two steps.

    Returns:
        In 0..1.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return cosine(step - warmup_steps, total_steps - warmup_steps)
