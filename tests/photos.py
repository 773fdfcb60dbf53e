"""A few pictures as files, and a run with a small random network that was not trained on them."""

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.encoder.load import save_encoder, spec_of
from stopgrad.nets.backbones import build_backbone


def write_photos(root, *, num=24, classes=("a", "b"), splits=("",), first=0):
    """Digits as PNG files below `root`, nested by split and class; their paths in order."""
    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    paths = []
    for split in splits:
        for name in classes:
            for _ in range(num // len(classes) // len(splits)):
                path = root / split / name / f"digit {first:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[first]).save(path)
                paths.append(path)
                first += 1
    return sorted(paths)


def write_run(path, data="", *, seed=0, backbone="resnet10_16"):
    """A run folder with an encoder of random weights."""
    config = Config().replace(backbone=backbone, image_size=12, path=str(data))
    run = RunDir(path)
    run.create()
    run.write_config(config)
    torch.manual_seed(seed)
    network = build_backbone(backbone)
    save_encoder(run, network, spec_of(config, 0))
    return run.path
