"""What guided stop-gradient itself costs: guide and loss as a share of a training step."""

from typing import Any

import torch

from stopgrad.bench.clock import Figure, seconds_a_call
from stopgrad.bench.parts import config_of
from stopgrad.hardware import autocast, choose_device, choose_precision
from stopgrad.objective.guided import GuidedStopGradientLoss
from stopgrad.train.build import build_method
from stopgrad.train.optim import build_optimizer


def guide_share(request: dict[str, Any]) -> list[Figure]:
    """Time of guide and loss, forward and backward, over that of a whole step of network and optimizer."""
    config, device = config_of(request), choose_device("auto")
    precision = choose_precision(config.training.precision, device)
    size, num, num_views = config.data.image_size, config.training.batch_size, config.objective.views
    method = build_method(config, device).train()
    method.watch = False
    optimizer = build_optimizer(method, config)
    generator = torch.Generator().manual_seed(0)
    views = torch.randn((num_views * num, 3, size, size), device=device).to(memory_format=torch.channels_last)
    views = views.unflatten(0, (num_views, num))

    def step() -> None:
        with autocast(device, precision):
            loss, _ = method(views, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        _wait(device)

    shape = (num, num_views, config.network.projection_dim)
    prediction, target = torch.randn(shape, device=device, requires_grad=True), torch.randn(shape, device=device)
    criterion = GuidedStopGradientLoss(config.objective.guide, generator=generator)

    def guide() -> None:
        prediction.grad = None
        criterion(prediction, target).backward()
        _wait(device)

    whole = seconds_a_call(step, request["seconds"])
    part = seconds_a_call(guide, min(1.0, request["seconds"]))
    return [
        Figure("guide and loss", "% of a step", 100 * part / whole),
        Figure("guide and loss", "ms", 1000 * part),
        Figure("step", "ms", 1000 * whole),
    ]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
