import pytest
import torch
from labelled import WHOLE
from torch import nn

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.data.sources import Subset
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.load import load_encoder, save_encoder, spec_of
from stopgrad.evaluate.shared.baselines import untrained_like
from stopgrad.nets.backbones import build_backbone
from stopgrad.recipes import RECIPES


class Pixels(nn.Module):
    """Features that are the pixels of one channel."""

    def forward(self, images):
        return images[:, 0].flatten(1)


@pytest.fixture
def pixels():
    return Encoder(Pixels(), WHOLE)


@pytest.fixture
def run_folder(tmp_path):
    """A run of digits with an untrained network."""
    run = RunDir(tmp_path / "run")
    run.create()
    config: Config = RECIPES["digits"]().replace(backbone="resnet10_16", image_size=8, knn_k=7, knn_temperature=0.3)
    run.write_config(config)
    backbone = build_backbone("resnet10_16", stem=config.network.stem)
    save_encoder(run, backbone, spec_of(config, 128))
    # With the statistics of the images in its BatchNorm: as built, its features are nearly constant.
    settled = untrained_like(load_encoder(run.path), Subset(open_images("").train, range(200)), 1, torch.device("cpu"))
    save_encoder(run, settled, spec_of(config, 128))
    return run.path


@pytest.fixture(scope="session")
def digits():
    """Some of scikit-learn's digits, for learning and for judging."""
    splits = open_images("")
    return Subset(splits.train, range(0, 1400, 5)), Subset(splits.test, range(120))
