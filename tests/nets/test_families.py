"""One small network of each of 28 families: ten steps, saved, loaded, exported; docs/backbones.md has the table."""

import re
from pathlib import Path

import pytest
import timm
import torch
from families import FAMILIES, side_of, trained

import stopgrad
from stopgrad.errors import ConfigError

TABLE = Path(__file__).parents[2] / "docs" / "backbones.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("network", FAMILIES.values(), ids=FAMILIES)
def test_a_family_trains_saves_loads_and_exports(network, tmp_path):
    run = trained(network, tmp_path / "run")
    side = side_of(network)
    pixels = torch.randint(256, (3, 3, side, side), dtype=torch.uint8)
    features = run.encoder.embed(pixels)
    assert features.isfinite().all()
    assert features.shape == (3, run.encoder.spec.num_features)
    again = stopgrad.load_encoder(run.path)
    assert torch.equal(again.embed(pixels), features)
    # The export is loaded by timm and compared there.
    stopgrad.export(again, to="timm", out=tmp_path / "exported.safetensors")


def test_the_table_has_every_family():
    rows = re.findall(r"^\| ([\w.-]+) \| `(\w+)` \|", TABLE.read_text(), re.MULTILINE)
    assert dict(rows) == FAMILIES


@pytest.mark.slow
def test_networks_that_take_one_size_say_so(tmp_path):
    with pytest.raises(ConfigError, match=r"levit_128s' fails on images of 100 x 100 .* its own size is 224"):
        stopgrad.pretrain(out=tmp_path / "run", recipe="digits", backbone="levit_128s", stem="standard", image_size=100)
    assert timm.is_model("levit_128s")


@pytest.mark.slow
def test_networks_that_cannot_be_built_for_a_size_say_so(tmp_path):
    with pytest.raises(ConfigError, match="'nest_tiny' cannot be built for images of 100 x 100"):
        stopgrad.pretrain(out=tmp_path / "run", recipe="digits", backbone="nest_tiny", stem="standard", image_size=100)
    assert not (tmp_path / "run" / "config.toml").exists()
