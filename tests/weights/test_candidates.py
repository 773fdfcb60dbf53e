"""Networks told by their shapes alone, among all that timm has."""

import threading

import pytest
import timm
from torch import nn
from torch.nn.modules import module

from stopgrad.weights.candidates import candidates_for
from stopgrad.weights.fit import weightless


def shapes(name, prefix="", **given):
    """The network's tensors, its classifier among them, without their numbers."""
    with weightless():
        network = timm.create_model(name, **given)
    return {f"{prefix}{n}": t for n, t in network.state_dict().items()}


@pytest.mark.parametrize("name", ["regnety_002", "convnext_atto"])
@pytest.mark.slow
def test_one_network_of_a_thousand(name):
    found = candidates_for(shapes(name, prefix="state_dict.module."))
    assert found.fitting == (name,)
    assert found.whole


@pytest.fixture
def few(monkeypatch):
    """The networks of a few kinds only, to be quick."""
    every = timm.list_models

    def some():
        return [name for kind in ("swin_*", "*resnet*50", "deit_tiny*", "vit_tiny*") for name in every(kind)]

    monkeypatch.setattr(timm, "list_models", some)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "seresnet50", "deit_tiny_distilled_patch16_224"])
@pytest.mark.slow
def test_others_that_make_more_weights_than_they_keep_or_have_heads_by_a_name_of_the_trunk(few, name):
    assert candidates_for(shapes(name)).fitting == (name,)


@pytest.mark.slow
def test_networks_that_weights_do_not_tell_apart():
    assert set(candidates_for(shapes("efficientnet_lite0")).fitting) == {"efficientnet_lite0", "tf_efficientnet_lite0"}


def test_a_vit_for_every_normalisation(few):
    assert set(candidates_for(shapes("vit_tiny_patch16_224")).fitting) == {
        "vit_tiny_patch16_224", "deit_tiny_patch16_224"
    }  # fmt: skip


@pytest.mark.slow
def test_what_is_nearest_and_why_it_does_not_fit(few):
    tensors = shapes("vit_tiny_patch16_224", img_size=320)
    found = candidates_for(tensors)
    assert found.fitting == ()
    words = {name: fit.words for name, fit in found.nearest}
    assert words["vit_tiny_patch16_224"] == "pos_embed is [1, 401, 192], not [1, 197, 192]"


@pytest.mark.slow
def test_weights_of_nothing_that_is_known():
    assert candidates_for(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 2)).state_dict()).nearest == ()


def test_searching_leaves_no_trace(monkeypatch):
    """Neither a hook nor an error in a network that another thread builds meanwhile."""
    built = []

    def elsewhere():
        built.append(nn.BatchNorm1d(12345))

    create = timm.create_model

    def and_another(*arguments, **given):
        if not built:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        return create(*arguments, **given)

    monkeypatch.setattr(timm, "create_model", and_another)
    monkeypatch.setattr(timm, "list_models", lambda: ["resnet18", "test_vit"])
    tensors = {name: tensor for name, tensor in shapes("test_vit").items() if "norm" not in name or "blocks" in name}
    candidates_for(tensors)
    assert not module._global_parameter_registration_hooks
    assert built[0].weight.device.type == "cpu"
