"""Training a backbone end to end, with a linear layer on it, to classify."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stopgrad.errors import NonFiniteLossError
from stopgrad.evaluate.shared.trained import Pace
from stopgrad.hardware import autocast
from stopgrad.loader.labelled import LabelledViews
from stopgrad.objective.device import sent
from stopgrad.reporter import Reporter
from stopgrad.schedules import warmup_cosine

MOMENTUM = 0.9
_INITIAL_STD = 0.01


@dataclass(frozen=True)
class Tuning:
    """How a network is trained; learning rates are for a batch of 256 and scaled by batch size / 256."""

    epochs: int
    lr: float
    """The backbone's."""
    head_lr: float
    optimizer: str
    """`sgd`, with momentum 0.9, or `adamw`."""
    weight_decay: float
    """On weights of two and more dimensions: not on biases and normalisation."""
    warmup_epochs: float
    label_smoothing: float
    precision: str
    seed: int


class Classifier(nn.Module):
    """A backbone with a linear layer on its pooled features.

    Args:
        backbone: trained along with the layer.
        dim: of its features.
        num_classes: at least 2.
        seed: of the layer's initial weights: normal with standard deviation 0.01, biases 0.
    """

    def __init__(self, backbone: nn.Module, dim: int, num_classes: int, seed: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(dim, num_classes)
        with torch.no_grad():
            self.head.weight.normal_(0, _INITIAL_STD, generator=torch.Generator().manual_seed(seed))
            self.head.bias.zero_()

    def forward(self, images: Float[Tensor, "image channel size size"]) -> Float[Tensor, "image num_classes"]:
        """Logits, in float32: the layer is kept out of autocast."""
        features = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.head(features.float())


def tune(
    network: Classifier, views: LabelledViews, tuning: Tuning, device: torch.device, what: str, reporter: Reporter
) -> None:
    """Train a network, in place, and leave it in eval mode.

    Args:
        network: on the device.
        views: the training images.
        tuning: how.
        device: where the network is.
        what: what to call it when telling of progress and in errors.
        reporter: told of progress.

    Raises:
        NonFiniteLossError: the loss is no number any more.
    """
    optimizer = _optimizer(network, tuning, views.batch_size / 256)
    per_epoch = views.steps_per_epoch
    total = tuning.epochs * per_epoch
    pace, batches = Pace(total), views.batches(0, total)
    recent = torch.zeros((), device=device)
    network.train()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for step, batch in enumerate(batches):
                # For whatever draws inside the network, such as dropout.
                torch.manual_seed(int(np.random.SeedSequence([tuning.seed, step]).generate_state(1)[0]))
                factor = warmup_cosine(step, total, tuning.warmup_epochs * per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
                images = views.views(batch)
                with autocast(device, tuning.precision):
                    logits = network(images)
                loss = F.cross_entropy(
                    logits, sent(views.labels_of(batch), device), label_smoothing=tuning.label_smoothing
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                # A smoothed loss, which stays NaN once it was, so that the device is asked now and then only.
                recent = loss.detach() if step == 0 else 0.9 * recent + 0.1 * loss.detach()
                pace.add(len(batch))
                if pace.is_due(step + 1):
                    _tell(float(recent), step, per_epoch, total, tuning, pace, what, reporter)
    finally:
        batches.close()
        network.eval()


def _tell(
    loss: float, step: int, per_epoch: int, total: int, tuning: Tuning, pace: Pace, what: str, reporter: Reporter
) -> None:
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"{what}: the loss is no longer finite by step {step + 1} of {total}, with lr = {tuning.lr:g} "
            f"({tuning.optimizer}): give a smaller one, or precision = 'fp32'."
        )
    details = f"epoch {step // per_epoch + 1}, loss {loss:.3f}, {pace.words(step + 1)}"
    reporter.progress(what, step + 1, total, details)


def _optimizer(network: Classifier, tuning: Tuning, scale: float) -> torch.optim.Optimizer:
    groups = []
    for module, rate in ((network.backbone, tuning.lr), (network.head, tuning.head_lr)):
        for decays in (True, False):
            params = [p for p in module.parameters() if (p.ndim > 1) == decays]
            if params:
                decay = tuning.weight_decay if decays else 0.0
                groups.append({"params": params, "peak": rate * scale, "lr": rate * scale, "weight_decay": decay})
    if tuning.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, lr=1.0, momentum=MOMENTUM)
