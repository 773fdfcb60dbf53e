"""Peers compute what they are held to compute, and a tiny arm of each runs."""

from importlib.util import find_spec

import pytest
import torch

from stopgrad import GuidedStopGradientLoss, knn_predict
from stopgrad.bench.neighbours import one_hot_knn
from stopgrad.bench.peers.paper import four_view_loss
from stopgrad.bench.samples import sample, write_photos, write_small_images

TINY = {
    "backbone": "resnet10_16", "projector_layers": 2, "width": 16, "predictor_width": 8, "size": 16,
    "helped": False, "batch_size": 8, "images": 16, "seconds": 0.01,
}  # fmt: skip
with_lightly = pytest.mark.skipif(find_spec("lightly") is None, reason="lightly is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_small_images(tmp_path_factory.mktemp("images"), num=24))


def test_the_transcribed_loss_is_ours(generator):
    views = [torch.randn(12, 7, generator=generator) for _ in range(8)]
    predictions, projections = [view.requires_grad_() for view in views[:4]], views[4:]
    partners = torch.randperm(12, generator=generator)
    theirs = four_view_loss(predictions, projections, partners)
    ours = GuidedStopGradientLoss()(torch.stack(predictions, dim=1), torch.stack(projections, dim=1), partners)
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(
        torch.autograd.grad(ours, predictions), torch.autograd.grad(theirs, predictions), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("num_classes", [3, 40])
def test_the_one_hot_form_classifies_as_ours_does(generator, num_classes):
    bank, queries = torch.randn(300, 16, generator=generator), torch.randn(270, 16, generator=generator)
    labels = torch.randint(num_classes, (300,), generator=generator)
    kwargs = {"k": 20, "temperature": 0.2, "num_classes": num_classes}
    assert torch.equal(one_hot_knn(bank, labels, queries, **kwargs), knn_predict(bank, labels, queries, **kwargs))


def test_the_papers_protocol_trains(data):
    pytest.importorskip("torchvision")
    from stopgrad.bench.peers.peers import paper_training

    images, views = paper_training({**TINY, "data": data})
    assert images.unit == "images/s"
    assert images.flops > 0
    assert views.value == pytest.approx(4 * images.value)


@with_lightly
@pytest.mark.parametrize(("method", "layers"), [("simsiam", 3), ("byol", 2)])
def test_lightly_trains(data, method, layers):
    from stopgrad.bench.peers.peers import lightly_training

    request = {**TINY, "data": data, "method": method, "projector_layers": layers, "helped": method == "byol"}
    images, views = lightly_training(request)
    assert views.value == pytest.approx(2 * images.value)


@with_lightly
def test_lightlys_views(data, tmp_path):
    from stopgrad.bench.peers.peers import lightly_photo_views, lightly_views

    assert lightly_views({**TINY, "data": data})[0].value > 0
    assert lightly_photo_views({**TINY, "data": str(write_photos(tmp_path, num=2)), "size": 32})[0].value > 0


def test_a_peer_does_the_same_work_as_ours(data):
    """Equal networks take equal operations, so that a ratio of images is one of speed."""
    if find_spec("lightly") is None:
        pytest.skip("lightly is not installed")
    from stopgrad.bench.clock import flops_of
    from stopgrad.bench.peers.lightly_blocks import SimSiamMethod
    from stopgrad.config import Config
    from stopgrad.methods.siamese import build_siamese
    from stopgrad.nets.backbones import build_backbone

    config = Config().replace(
        backbone="resnet10_16", stem="small", projector_layers=3, projector_width=16, projection_dim=16,
        predictor_width=8, guide="symmetric",
    )  # fmt: skip
    ours = build_siamese(config)
    theirs = SimSiamMethod(build_backbone("resnet10_16", stem="small"), 3, 16, 8)
    views = torch.randn(2, 4, 3, 16, 16)
    assert flops_of(lambda: ours(views, torch.Generator())[0]) == flops_of(lambda: theirs(list(views)))
    num_weights = [sum(p.numel() for p in method.parameters()) for method in (ours, theirs)]
    assert num_weights[0] == num_weights[1]


def test_a_sample_is_the_same_each_time(data):
    first, second = sample(data, 5), sample(data, 5)
    assert len(first) == 5
    assert [first.read(i) for i in range(5)] == [second.read(i) for i in range(5)]
    assert len(sample(data, 1000)) == 24
