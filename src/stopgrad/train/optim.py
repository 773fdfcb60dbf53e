"""Optimizer and learning-rate schedule."""

import math
from typing import Any

import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from timm.optim.lars import Lars

from stopgrad.config import Config
from stopgrad.methods.protocol import Method
from stopgrad.schedules import cosine


def build_optimizer(method: Method, config: Config) -> torch.optim.Optimizer:
    """The optimizer over a method's parameter groups; the fused kernel where there is one.

    A group has beside torch's keys `fixed_lr` (it keeps the peak), `lr_share` (of the scheduled rate) and `waits` (its
    rate is 0 while the heads warm up).
    """
    o = config.optimization
    groups = []
    for group in method.param_groups():
        fixed = o.predictor_lr_fixed and group["name"] == "predictor"
        parts = _encoder_groups(method, group, config) if group["name"] == "encoder" else [group]
        groups += [{"lr_share": 1.0, "waits": False, **part, "fixed_lr": fixed} for part in parts]
    if o.optimizer == "adamw":
        groups = [part for group in groups for part in _with_and_without_decay(group)]
        return torch.optim.AdamW(groups, lr=peak_lr(config), weight_decay=o.weight_decay, fused=True)
    if o.optimizer == "lars":
        parts = [part for group in groups for part in _with_and_without_decay(group)]
        # Nor do their rates adapt.
        groups = [{**part, "always_adapt": "weight_decay" not in part} for part in parts]
        return Lars(groups, lr=peak_lr(config), momentum=o.momentum, weight_decay=o.weight_decay)
    return torch.optim.SGD(groups, lr=peak_lr(config), momentum=o.momentum, weight_decay=o.weight_decay, fused=True)


def _encoder_groups(method: Method, group: dict[str, Any], config: Config) -> list[dict[str, Any]]:
    """The encoder as one group, or its backbone apart, by layers where they differ in rate."""
    o = config.optimization
    if o.backbone_lr == 1 and o.layer_decay == 1 and not o.head_warmup:
        return [group]
    body = [p for p in method.backbone.parameters() if p.requires_grad]
    own = {id(p) for p in method.backbone.parameters()}
    layers = [{"params": body, "lr_share": o.backbone_lr}]
    if o.layer_decay < 1:
        layers = [
            {"params": layer["params"], "lr_share": o.backbone_lr * layer["lr_scale"]}
            for layer in param_groups_layer_decay(method.backbone, layer_decay=o.layer_decay)
        ]
    heads = [p for p in group["params"] if id(p) not in own]
    waits = o.head_warmup > 0
    return [*({"name": "backbone", "waits": waits, **layer} for layer in layers), {"name": "heads", "params": heads}]


def _with_and_without_decay(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Biases and the weights of norms do not decay, as in BYOL (arXiv 2006.07733, section 3.3) and in ViTs' recipes."""
    vectors = [p for p in group["params"] if p.ndim < 2]
    others = [p for p in group["params"] if p.ndim >= 2]
    return [{**group, "params": others}, {**group, "params": vectors, "weight_decay": 0.0}]


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


def set_lr(optimizer: torch.optim.Optimizer, peak: float, factor: float, *, heads_only: bool = False) -> float:
    """Set the learning rate of every group; a group of fixed rate keeps its peak. Returns the scheduled rate.

    Args:
        optimizer: of `build_optimizer`.
        peak, factor: the peak rate and the step's share of it.
        heads_only: whether the backbone waits.
    """
    for group in optimizer.param_groups:
        rate = peak if group["fixed_lr"] else peak * factor
        group["lr"] = 0.0 if heads_only and group["waits"] else rate * group["lr_share"]
    return peak * factor
