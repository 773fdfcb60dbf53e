import json

import pytest
import torch
from torch import nn

from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.serialize import pack, unpack
from stopgrad.errors import CheckpointError
from stopgrad.loader.preprocess import Preprocess
from stopgrad.nets.backbones import build_backbone
from stopgrad.weights.spec import EncoderSpec

SPEC = EncoderSpec("resnet10_16", "small", 128, 8, 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.fixture
def encoder():
    return Encoder(build_backbone("resnet10_16", stem="small").eval(), SPEC.preprocess(), SPEC, "here")


def test_an_encoder_comes_back_to_the_bit(encoder):
    again = unpack(pack(encoder))
    assert (again.spec, again.preprocess, again.name) == (SPEC, encoder.preprocess, "here")
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(again.embed(images, device="cpu"), encoder.embed(images, device="cpu"))
    assert not again.backbone.training


def test_it_is_plain_data(encoder):
    packed = pack(encoder)
    assert isinstance(packed.pop("weights"), bytes)
    json.dumps(packed)


def test_a_network_of_the_callers_own():
    encoder = Encoder(nn.Flatten(), Preprocess(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), name="mine")
    with pytest.raises(ValueError, match="mine has no spec"):
        pack(encoder)


def test_weights_of_another_backbone(encoder):
    packed = pack(encoder)
    packed["spec"]["backbone"] = "resnet10_24"
    with pytest.raises(CheckpointError, match="here does not fit backbone 'resnet10_24'"):
        unpack(packed)


def test_a_negative_batch_size(encoder):
    with pytest.raises(ValueError, match="batch_size = -1: must be at least 1"):
        encoder.embed(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), batch_size=-1)
