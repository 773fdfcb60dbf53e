"""A batch in groups gives the step that as many processes give, each with one of them."""

import copy
from contextlib import nullcontext

import equality
import pytest
import torch
from torch import nn

from stopgrad.config import Config
from stopgrad.distributed.rank import Rank
from stopgrad.errors import ConfigError, DataError
from stopgrad.methods import build
from stopgrad.methods.together import Together

STEPS, CPU = 4, torch.device("cpu")


def made(**settings):
    torch.manual_seed(0)
    config = Config().replace(
        projection_dim=8, projector_width=12, predictor_width=4, backbone="own:network", **settings
    )  # fmt: skip
    network = equality.network()
    network.append(nn.Dropout(0.1))
    return build(config, network).double().train()


def seed_of(step, process):
    return 100 * step + process


def views_of(step, settings, num_images):
    draws = torch.Generator().manual_seed(step)
    shape = (settings.get("views", 2), num_images, 3, 8, 8)
    local = torch.rand((settings.get("local_views", 0), num_images, 3, 6, 6), generator=draws, dtype=torch.float64)
    views = torch.rand(shape, generator=draws, dtype=torch.float64)
    return (views, local) if len(local) else (views,)


def by_hand(settings, groups, num_images, accumulate=1):
    """As many processes as groups would train, without any: each has a copy of the network and its own images."""
    methods = [copy.deepcopy(made(**settings)) for _ in range(groups)]
    optimizers = [torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9) for method in methods]
    losses = []
    for step in range(STEPS):
        of_step = []
        for process, method in enumerate(methods):
            torch.manual_seed(seed_of(step, process))
            draws = torch.Generator().manual_seed(seed_of(step, process))
            views = tuple(kind[:, process::groups] for kind in views_of(step, settings, num_images))
            method.zero_grad()
            loss, _ = Together(method, Rank(), CPU, accumulate=accumulate).backward(views, draws, nullcontext)
            of_step.append(loss.item())
        for weights in zip(*(method.parameters() for method in methods), strict=True):
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            for weight in weights:
                weight.grad = sum(gradients) / groups if gradients else None
        for method, optimizer in zip(methods, optimizers, strict=True):
            optimizer.step()
            method.after_step((step + 1) / STEPS)
        losses.append(sum(of_step) / groups)
    return losses, methods[0].state_dict()


def in_groups(settings, groups, num_images, accumulate=1):
    method = made(**settings)
    together = Together(method, Rank(), CPU, statistics="local", groups=groups, accumulate=accumulate)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    losses, draws = [], torch.Generator()
    for step in range(STEPS):
        views = views_of(step, settings, num_images)
        optimizer.zero_grad()
        loss, diagnostics = together.backward(
            views, draws, nullcontext, range(num_images), lambda process, step=step: seed_of(step, process)
        )
        assert diagnostics.keys() <= {"guide_balance", "guide_margin"}
        losses.append(loss.item())
        optimizer.step()
        method.after_step((step + 1) / STEPS)
    return losses, method.state_dict()


@pytest.mark.parametrize(
    ("settings", "groups", "num_images"),
    [
        ({"method": "simsiam", "guide": "symmetric"}, 2, 12),
        ({"method": "simsiam", "guide": "random_views", "source_first": True}, 3, 13),
        ({"method": "simsiam", "guide": "nearest_views", "views": 4}, 2, 12),
        ({"method": "byol", "guide": "nearest_views", "source_first": True}, 2, 13),
        ({"method": "byol", "guide": "farthest_views", "views": 4, "source_first": True}, 3, 12),
        ({"method": "byol", "guide": "nearest_views", "local_views": 2}, 2, 12),
        ({"method": "simsiam", "guide_keep": 0.5, "source_first": True}, 2, 12),
        ({"method": "simclr"}, 3, 13),
        ({"method": "barlow_twins"}, 2, 12),
        ({"method": "vicreg", "views": 4}, 2, 12),
    ],
    ids=lambda value: "-".join(str(each) for each in value.values()) if isinstance(value, dict) else str(value),
)
def test_groups_train_as_processes_with_their_own_images(settings, groups, num_images):
    losses, state = by_hand(settings, groups, num_images)
    found_losses, found = in_groups(settings, groups, num_images)
    torch.testing.assert_close(found_losses, losses, rtol=1e-10, atol=0)
    assert found.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
    assert abs(in_groups(settings, 1, num_images)[0][-1] - losses[-1]) > 1e-6, "the whole batch trains otherwise"


def test_running_statistics_are_of_the_first_group_and_move_once_a_step():
    _, state = in_groups({"method": "byol", "source_first": True}, 3, 12)
    online = {name: value for name, value in state.items() if "num_batches" in name and "target" not in name}
    assert {int(value) for value in online.values()} == {STEPS}


def test_each_group_may_be_trained_in_parts():
    settings = {"method": "byol", "source_first": True}
    losses, state = by_hand(settings, 2, 26, accumulate=3)
    found_losses, found = in_groups(settings, 2, 26, accumulate=3)
    torch.testing.assert_close(found_losses, losses, rtol=1e-10, atol=0)
    torch.testing.assert_close(found, state, rtol=1e-10, atol=1e-12)


def test_gradients_are_sent_once_a_step(monkeypatch):
    """By what torch's module would do: it is asked not to send them after all groups but the last."""
    asked = []

    class Wrapped(nn.Module):
        def no_sync(self):
            asked.append("no_sync")
            return nullcontext()

        def forward(self, *views):
            asked.append(views[0].shape[1])
            return method(*views)

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Wrapped)
    method = made()
    together = Together(method, Rank(), CPU, groups=3, statistics="local")
    together.wrapped = Wrapped()
    together.backward(views_of(0, {}, 13), torch.Generator(), nullcontext, range(13))
    assert asked == ["no_sync", 5, "no_sync", 4, 4]


def test_images_that_cannot_be_read_leave_the_others_in_their_groups():
    together = Together(made(), Rank(), CPU, groups=2, statistics="local")
    rows, (views,) = [0, 1, 2, 5, 6], views_of(0, {}, 5)
    first, second = (group[0] for group in together._grouped((views,), rows))
    torch.testing.assert_close(first, views[:, [0, 2, 4]])
    torch.testing.assert_close(second, views[:, [1, 3]])
    # As the loader lays views out.
    assert first[0].is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(DataError, match=r"only 1 of the images of a group can be read \(batch_groups = 2\)"):
        together.backward((views,), torch.Generator(), nullcontext, [0, 1, 2, 4, 6])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "moco"}, "batch_groups = 2 with method = 'moco': only simsiam, byol, simclr, barlow_twins, vicreg"),
        ({"method": "dino"}, "method = 'dino'"),
        ({"method": "mine:method"}, "method = 'mine:method'"),
        ({"batch_statistics": "global"}, "batch_groups = 2 with batch_statistics = 'global'"),
        ({"batch_size": 9}, "batch_size = 9 does not divide among batch_groups = 2"),
        ({"batch_size": 12, "devices": 4}, "batch_groups = 2 does not divide among devices = 4"),
        ({"batch_groups": 1, "devices": 2}, "batch_groups = 1 does not divide among devices = 2"),
        ({"batch_groups": -1}, "at least 0"),
    ],
)
def test_what_cannot_be_in_groups_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config().replace(**{"batch_groups": 2, **settings})


def test_a_guide_that_may_remember_is_refused_in_groups():
    class Remembers(nn.Module):
        def forward(self, target, partners, generator):
            return torch.full(target.shape[:2], 0.5)

    method = made()
    method.choice.guide = Remembers()
    Together(method, Rank(), CPU, statistics="local")
    with pytest.raises(ConfigError, match="batch_groups = 2 with a guide that is a module"):
        Together(method, Rank(), CPU, statistics="local", groups=2)
