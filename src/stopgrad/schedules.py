"""Schedules: a step's share of the peak learning rate, and an EMA momentum that rises."""

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


def rising(momentum: float, progress: float) -> float:
    """An EMA momentum that rises to 1 along half a cosine.

    Args:
        momentum: at the start, in 0..1.
        progress: share of the run that is done, in 0..1.

    Source: BYOL (arXiv 2006.07733), section 3.3.
    """
    return 1 - (1 - momentum) * cosine(progress, 1.0)
