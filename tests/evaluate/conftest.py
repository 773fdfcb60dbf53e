import pytest
from labelled import WHOLE
from torch import nn

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.sources import Subset, open_images
from stopgrad.encoder.embed import Encoder
from stopgrad.encoder.load import save_encoder, spec_of
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
    save_encoder(run, build_backbone("resnet10_16", stem=config.network.stem), spec_of(config, 128))
    return run.path


@pytest.fixture(scope="session")
def digits():
    """Some of scikit-learn's digits, for learning and for judging."""
    splits = open_images("")
    return Subset(splits.train, range(0, 1400, 5)), Subset(splits.test, range(120))
