"""Optimizer and learning-rate schedule."""

import math
from typing import Any

import torch

from stopgrad.config import Config
from stopgrad.lars import Lars
from stopgrad.methods.protocol import Method
from stopgrad.schedules import cosine


def build_optimizer(method: Method, config: Config) -> torch.optim.Optimizer:
    """The optimizer over a method's parameter groups; the fused kernel where there is one."""
    o = config.optimization
    groups = method.param_groups()
    for group in groups:
        group["fixed_lr"] = o.predictor_lr_fixed and group["name"] == "predictor"
    if o.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=peak_lr(config), weight_decay=o.weight_decay, fused=True)
    if o.optimizer == "lars":
        groups = [part for group in groups for part in _with_and_without_lars(group)]
        return Lars(groups, lr=peak_lr(config), momentum=o.momentum, weight_decay=o.weight_decay)
    return torch.optim.SGD(groups, lr=peak_lr(config), momentum=o.momentum, weight_decay=o.weight_decay, fused=True)


def _with_and_without_lars(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Biases and the weights of BatchNorm neither decay nor adapt, as in BYOL (arXiv 2006.07733, section 3.3)."""
    vectors = [p for p in group["params"] if p.ndim < 2]
    others = [p for p in group["params"] if p.ndim >= 2]
    return [{**group, "params": others}, {**group, "params": vectors, "adapt": False, "weight_decay": 0.0}]


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state dict into an optimizer whose weights may lie channels-last in memory.

    torch leaves the loaded tensors as they lie, and the fused kernels walk weight, gradient and momentum side by side
    through memory: with different strides they would update the wrong elements, in silence.
    """
    optimizer.load_state_dict(state)
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter).copy_(value)


def peak_lr(config: Config, batch_size: int | None = None) -> float:
    """The learning rate at its peak: scaled linearly with the batch (Goyal et al., arXiv 1706.02677)."""
    return config.optimization.lr * (batch_size or config.training.batch_size) / 256


def lr_factor(config: Config, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """The learning rate of a step as a share of its peak, in 0..1."""
    o = config.optimization
    warmup = o.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup
    if o.lr_schedule == "constant":
        return 1.0
    if o.lr_schedule == "cosine_per_epoch":
        step = step // steps_per_epoch * steps_per_epoch
        total_steps = math.ceil(total_steps / steps_per_epoch) * steps_per_epoch
    return cosine(step - warmup, total_steps - warmup)


def set_lr(optimizer: torch.optim.Optimizer, peak: float, factor: float) -> float:
    """Set the learning rate of every group; a group of fixed rate keeps its peak. Returns the scheduled rate."""
    for group in optimizer.param_groups:
        group["lr"] = peak if group["fixed_lr"] else peak * factor
    return peak * factor
