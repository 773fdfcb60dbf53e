"""A batch in parts gives the step that it gives at once."""

from contextlib import nullcontext

import accumulating
import numpy as np
import pytest
import torch
from recorder import Recorder

from stopgrad.config import Config
from stopgrad.distributed.launch import launch
from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError
from stopgrad.methods import build
from stopgrad.methods.together import Together
from stopgrad.nets.norms import _BatchNorm


def cases():
    for method in ("simsiam", "byol"):
        for guide in ("nearest_views", "farthest_views", "random_views"):
            for first in (False, True):
                yield {"method": method, "guide": guide, "source_first": first}
        yield {"method": method, "guide": "symmetric"}
        yield {"method": method, "guide": "nearest_views", "views": 4, "source_first": True}
        yield {"method": method, "guide": "nearest_views", "local_views": 2, "source_first": True}
        yield {"method": method, "guide": "nearest_views", "local_views": 2, "targets": "mean_of_others", "views": 4}


def words(settings):
    return "-".join(str(value) for value in settings.values())


@pytest.mark.parametrize("settings", list(cases()), ids=words)
def test_parts_of_a_batch_train_as_the_batch_does(settings):
    losses, state = accumulating.trained(settings, Rank(), 1)
    for parts in (2, 5):
        in_parts = accumulating.trained(settings, Rank(), parts)
        np.testing.assert_allclose(in_parts[0], losses, rtol=1e-10)
        np.testing.assert_allclose(in_parts[1], state, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_so_they_do_on_several_processes(tmp_path):
    settings = {"method": "simsiam", "guide": "nearest_views", "source_first": True}
    losses, state = accumulating.trained(settings, Rank(), 1)
    launch("accumulating", {"folder": str(tmp_path), "settings": settings}, 2, Recorder())
    for kind in (False, True):
        found = [np.load(tmp_path / f"{index} {kind}.npz") for index in range(2)]
        np.testing.assert_allclose(np.mean([one["losses"] for one in found], axis=0), losses, rtol=1e-10)
        for one in found:
            np.testing.assert_allclose(one["state"], state, rtol=1e-10, atol=1e-12)


def test_gradients_are_sent_once_a_step(monkeypatch):
    """By what torch's module would do: it is asked not to send them in all parts but the last."""
    settings, asked = {"guide": "nearest_views"}, []

    class Wrapped(torch.nn.Module):
        sends = True

        def __init__(self, method):
            super().__init__()
            self.method = method

        def no_sync(self):
            asked.append("no_sync")
            return nullcontext()

        def forward(self, *views, **given):
            asked.append("forward")
            return self.method(*views, **given)

    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", Wrapped)
    method, together = accumulating.made(settings, Rank(), 3)
    together.wrapped = Wrapped(method)
    together.backward(accumulating.views_of(0, settings)[:1], torch.Generator(), nullcontext)
    assert asked == ["no_sync", "forward", "no_sync", "forward", "forward"]


def test_batchnorm_sees_each_part():
    settings = {"method": "simsiam", "source_first": True}
    method, together = accumulating.made(settings, Rank(), 3, frozen=False)
    views = accumulating.views_of(0, settings)[0]
    parts = views.tensor_split(3, dim=1)
    (target, weights), diagnostics = method.choose_ahead(parts, torch.Generator())
    torch.testing.assert_close(target[:5], method.choose_ahead(parts[:1], torch.Generator())[0][0])
    assert "guide_balance" in diagnostics
    assert weights.shape == (13, 2)
    together.backward((views,), torch.Generator(), nullcontext)
    assert {int(norm.num_batches_tracked) for norm in method.modules() if isinstance(norm, _BatchNorm)} == {3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "simclr"}, "accumulate = 2 with method = 'simclr': only simsiam and byol train"),
        ({"method": "moco"}, "method = 'moco'"),
        ({"method": "vicreg"}, "method = 'vicreg'"),
        ({"guide_keep": 0.5}, "guide_keep = 0.5"),
        ({"accumulate": 0}, "at least 1"),
    ],
)
def test_what_takes_no_parts_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config().replace(**{"accumulate": 2, **settings})


def test_a_guide_that_drops_images_takes_no_parts():
    config = Config().replace(guide_keep=0.5, backbone="own:network", projection_dim=8)
    with pytest.raises(ConfigError, match="a guide that keeps all images"):
        Together(build(config, accumulating.network()), Rank(), torch.device("cpu"), accumulate=2)
