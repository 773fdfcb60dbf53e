"""Multinomial logistic regression with an L2 penalty, to its optimum, in bounded memory."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Rows in float64 while they take no more than this; beyond, in float32, with the parameters in float64 all the same.
DOUBLE_BYTES = 256 * 2**20
BLOCK_BYTES = 32 * 2**20
# A dimension whose deviation is below this share of its size is constant but for the rounding of float32.
ROUNDING = 1e-6
# A line search cannot go nearer: what is left to gain goes as the square, and is lost in the rounding of float64.
NEAREST = 2e-7
# How much is spent on knowing how curved the problem is, on which the number of steps depends and no result.
CURVATURE_ROWS = 8192
WEIGHED_DIMS = 1024


@dataclass(frozen=True)
class Standard:
    """Mean and deviation of each dimension."""

    mean: Float[Tensor, "dim"]
    scale: Float[Tensor, "dim"]
    """1 for a constant dimension."""


@dataclass(frozen=True)
class Design:
    """Standardised features, in the coordinates that a classifier is fitted in."""

    rows: Float[Tensor, "image rank"]
    moment: Float[Tensor, "rank rank"]
    """Second moment of the rows, or of many of them."""
    standard: Standard
    basis: Tensor | None
    """`[dim rank]`, orthonormal, where there are fewer images than dimensions: a penalised optimum lies in the span of
    the images, so that nothing is lost. None: the rows have all dimensions."""


@dataclass(frozen=True)
class LogisticFit:
    """A fitted classifier, in the coordinates of a design's rows."""

    weight: Float[Tensor, "cls rank"]
    bias: Float[Tensor, "cls"]
    loss: float
    """Mean log-loss with the penalty."""
    gradient: float
    """Its largest derivative, in coordinates in which the curvature is about 1."""
    converged: bool
    num_iterations: int


def standard_of(features: Float[Tensor, "image dim"]) -> Standard:
    """Mean and deviation of each dimension, in float64 but float32 where a device has no other."""
    num, dtype = len(features), _double(features.device)
    blocks = features.split(_block_rows(features.shape[1]))
    mean = torch.stack([block.to(dtype).sum(dim=0) for block in blocks]).sum(dim=0) / num
    variance = torch.stack([(block.to(dtype) - mean).square().sum(dim=0) for block in blocks]).sum(dim=0) / num
    size = (variance + mean.square()).sqrt()
    scale = variance.sqrt()
    return Standard(mean, torch.where(scale > ROUNDING * size, scale, torch.ones_like(scale)))


def design_of(
    features: Float[Tensor, "image dim"], standard: Standard, order: Int[Tensor, "row"] | None = None
) -> Design:
    """Standardise features, and leave away the dimensions that too few images cannot use.

    Args:
        features: any scale.
        standard: what they are standardised by.
        order: which of them, in this order; None: all.
    """
    num, dim = len(features) if order is None else len(order), features.shape[1]
    dtype = _double(features.device) if 8 * num * dim <= DOUBLE_BYTES else torch.float32
    rows = torch.empty((num, dim), dtype=dtype, device=features.device)
    for start in range(0, num, step := _block_rows(dim)):
        which = slice(start, start + step)
        block = features[which] if order is None else features[order[which]]
        rows[which] = ((block - standard.mean) / standard.scale).to(dtype)
    basis = None
    if num < dim:
        basis, upper = torch.linalg.qr(rows.T)
        rows = upper.T.contiguous()
    some = _some(rows)
    return Design(rows, (some.T @ some / len(some)).to(_double(rows.device)), standard, basis)


def fit_logistic(
    rows: Float[Tensor, "image rank"], labels: Int[Tensor, "image"], *, num_classes: int, l2: float,
    moment: Float[Tensor, "rank rank"], start: LogisticFit | None = None, tolerance: float | None = None,
    max_iterations: int = 1000,
) -> LogisticFit:  # fmt: skip
    """Minimise the mean log-loss plus l2 / (2 images) |weight|^2; the bias is not penalised.

    The optimum is that of scikit-learn's LogisticRegression with C = 1 / l2. L-BFGS with a strong-Wolfe line search, in
    coordinates in which the curvature at the start is about 1 in all directions, so that few steps do.

    Args:
        rows: of a design, or some of them.
        labels: class of each row, in 0..num_classes - 1, each of them there.
        num_classes: 2 or more.
        l2: the penalty, above 0.
        moment: of the design; it decides how fast the optimum is reached, and not which.
        start: a fit to start from, such as that for a stronger penalty.
        tolerance: the largest derivative at which it has converged, times ten losses where these are below 1; None:
            1e-5, and 1e-4 for rows in float32, whose rounding hides what is left to gain after that (about 1e-8).
        max_iterations: after which it is given up; `converged` tells.

    Raises:
        ValueError: a penalty or labels out of range.
    """
    if not l2 > 0:
        raise ValueError(f"l2 = {l2}: must be above 0.")
    counts = torch.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes or num_classes < 2 or not counts.all():
        raise ValueError(f"labels must take all values in 0..{num_classes - 1}, at least two.")
    num, double = len(rows), moment.dtype
    tolerance = tolerance or (1e-4 if rows.dtype is torch.float32 else 1e-5)
    if start is None:
        # Of the softmax at equal probabilities: 1 / classes in all directions that it sees.
        curvature = 1 / num_classes
        weighted = curvature * moment
        weight, bias = moment.new_zeros((num_classes, rows.shape[1])), (counts.to(double) / num).log()
        bias -= bias.mean()
    else:
        weight, bias = start.weight, start.bias
        curvature, weighted = _curvature(rows, start, moment)
    root, bias_scale = _root(weighted, l2 / num), curvature**-0.5
    free = torch.cat([weight @ root, bias[:, None] / bias_scale], dim=1).requires_grad_()

    def placed() -> tuple[Tensor, Tensor]:
        here = free.detach()
        return torch.linalg.solve_triangular(root, here[:, :-1], upper=False, left=False), here[:, -1] * bias_scale

    def closure() -> Tensor:
        with torch.no_grad():
            weight, bias = placed()
            loss, by_weight, by_bias = _loss_and_gradient(rows, labels, weight, bias)
            loss += l2 / (2 * num) * weight.square().sum()
            by_weight += l2 / num * weight
            by_free = torch.linalg.solve_triangular(root.T, by_weight, upper=True, left=False)
            free.grad = torch.cat([by_free, by_bias[:, None] * bias_scale], dim=1)
        return loss

    solver = torch.optim.LBFGS(
        [free], max_iter=max_iterations, tolerance_grad=tolerance, tolerance_change=1e-15, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    loss, gradient, target = 0.0, float("inf"), tolerance
    for _ in range(3):
        solver.param_groups[0]["tolerance_grad"] = target
        solver.step(closure)
        # The line search may have looked elsewhere last.
        loss = float(closure())
        assert free.grad is not None
        gradient = float(free.grad.abs().max())
        # Where classes come apart the loss itself is small, and so must be what is left to gain.
        target = tolerance if rows.dtype is torch.float32 else max(tolerance * min(1.0, 10 * loss), NEAREST)
        if gradient <= target or int(solver.state[free]["n_iter"]) >= max_iterations:
            break
    weight, bias = placed()
    return LogisticFit(weight, bias, loss, gradient, gradient <= target, int(solver.state[free]["n_iter"]))


def log_probabilities(rows: Float[Tensor, "image rank"], fit: LogisticFit) -> Float[Tensor, "image cls"]:
    """Of each class, for rows of the design that the fit is of."""
    return (rows @ fit.weight.to(rows.dtype).T + fit.bias.to(rows.dtype)).log_softmax(dim=1)


def predict_logistic(features: Float[Tensor, "image dim"], design: Design, fit: LogisticFit) -> Int[Tensor, "image"]:
    """The most probable class of features that are not standardised yet, block by block."""
    weight = fit.weight if design.basis is None else fit.weight @ design.basis.to(fit.weight.dtype).T
    weight, standard = weight.to(design.rows.dtype), design.standard
    predicted = torch.empty(len(features), dtype=torch.int64, device=features.device)
    for start in range(0, len(features), step := _block_rows(features.shape[1] + len(weight))):
        block = (features[start : start + step] - standard.mean) / standard.scale
        logits = block.to(weight.dtype) @ weight.T + fit.bias.to(weight.dtype)
        predicted[start : start + step] = logits.argmax(dim=1)
    return predicted


def _loss_and_gradient(rows: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean log-loss, and its derivatives by weight and bias."""
    num, double = len(rows), weight.dtype
    loss, by_weight, by_bias = weight.new_zeros(()), torch.zeros_like(weight), torch.zeros_like(bias)
    narrow = weight.to(rows.dtype)
    # Classes come first: products of a few rows with a long matrix are several times as fast this way round.
    for start in range(0, num, step := _block_rows(rows.shape[1] + 3 * len(weight))):
        block, own = rows[start : start + step], labels[None, start : start + step]
        log_p = torch.addmm(bias.to(rows.dtype)[:, None], narrow, block.T).log_softmax(dim=0)
        loss -= log_p.gather(0, own).sum(dtype=double)
        wrong = log_p.exp_()
        wrong.scatter_add_(0, own, wrong.new_full(own.shape, -1.0))
        by_weight += wrong @ block
        by_bias += wrong.sum(dim=1, dtype=double)
    return loss / num, by_weight / num, by_bias / num


def _curvature(rows: Tensor, fit: LogisticFit, moment: Tensor) -> tuple[float, Tensor]:
    """How curved the log-loss is at a fit: averaged over its classes, by the bias and by the weight."""
    some = _some(rows)
    p = log_probabilities(some, fit).exp_()
    spread = (p * (1 - p)).sum(dim=1) / (p.shape[1] - 1)
    mean = max(float(spread.mean()), 1e-9)
    if rows.shape[1] > WEIGHED_DIMS:
        return mean, mean * moment
    return mean, (some.T @ (some * (spread / len(some))[:, None])).to(moment.dtype)


def _some(rows: Tensor) -> Tensor:
    """Enough rows, spread evenly, for their second moment to tell how curved the problem is."""
    return rows[:: max(1, len(rows) // max(CURVATURE_ROWS, 4 * rows.shape[1]))]


def _root(matrix: Tensor, ridge: float) -> Tensor:
    """Lower Cholesky factor of matrix + ridge, with more of a ridge where rounding asks for it."""
    diagonal = matrix.diagonal().mean()
    least = float(diagonal) * 1e-9 + 1e-12
    for _ in range(8):
        shifted = matrix + max(ridge, least) * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        root, failed = torch.linalg.cholesky_ex(shifted)
        if not failed:
            return root
        least *= 100
    raise ValueError("the features are not finite.")


def _block_rows(width: int) -> int:
    return max(1, BLOCK_BYTES // (8 * width))


def _double(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
