import pytest
import torch
from torch import nn

from stopgrad.config import Config
from stopgrad.methods import METHODS
from stopgrad.removed import CANDIDATES
from stopgrad.studies.cells import passes_an_image

COMMON = {"backbone": "resnet10_16", "stem": "small", "image_size": 8, "projector_width": 8, "projection_dim": 8,
          "predictor_width": 4, "queue_size": 16}  # fmt: skip


def counted(config):
    """Images that pass the encoders, those with gradient counted three times, local ones by area, per image."""
    method = METHODS[config.objective.method](config, None)
    count = 0

    def count_images(_module, inputs, _output):
        nonlocal count
        count += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1) * inputs[0].shape[3] ** 2 / 64

    for encoder in (method.encoder, getattr(method, "target_encoder", None)):
        if isinstance(encoder, nn.Module):
            encoder[0].register_forward_hook(count_images)
    views = torch.randn(config.objective.views, 8, 3, 8, 8)
    local = [torch.randn(config.objective.local_views, 8, 3, 4, 4)] if config.objective.local_views else []
    method(views, torch.Generator().manual_seed(0), *local)
    return count / 8


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "simsiam", "guide": "symmetric"},
        {"method": "simsiam", "guide": "nearest_views", "views": 4},
        {"method": "simsiam", "guide": "nearest_views", "source_first": True},
        {"method": "byol", "guide": "symmetric"},
        {"method": "byol", "guide": "symmetric", "source_first": True},
        {"method": "byol", "guide": "random_views", "views": 4},
        {"method": "byol", "guide": "nearest_views", "source_first": True},
        {"method": "byol", "guide": "nearest_views", "source_first": True, "views": 4},
        {"method": "byol", "guide": f"{CANDIDATES}:nearest_of_all", "source_first": True, "views": 4},
        {
            "method": "byol",
            "guide": f"{CANDIDATES}:random_of_all",
            "source_first": True,
            "views": 4,
            "targets": "mean_of_others",
        },
        {"method": "byol", "guide": f"{CANDIDATES}:NearestInMemory", "source_first": True},
        {"method": "byol", "guide": "nearest_views", "source_first": True, "guide_keep": 0.5},
        {"method": "byol", "guide": f"{CANDIDATES}:hard_half", "source_first": True},
        {"method": "byol", "guide": "random_views", "source_first": True, "guide_keep": 0.5, "guide_keep_by": "random"},
        {"method": "byol", "guide": f"{CANDIDATES}:soft_in_batch", "source_first": True},
        {"method": "byol", "guide": f"{CANDIDATES}:decided_half_in_batch", "source_first": True, "views": 4},
        {"method": "simsiam", "guide": "symmetric", "local_views": 3},
        {"method": "byol", "guide": "nearest_views", "local_views": 4},
        {"method": "byol", "guide": "nearest_views", "source_first": True, "local_views": 4},
        {"method": "dino", "local_views": 2},
        {"method": "simclr"},
        {"method": "moco", "projector_norm": "none"},
        {"method": "dino"},
    ],
    ids=lambda s: "-".join(str(v) for v in s.values()),
)
def test_the_passes_are_those_that_are_made(settings):
    config = Config().replace(**COMMON, **settings)
    assert passes_an_image(config) == counted(config)
