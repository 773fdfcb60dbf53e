import threading
import time
from contextlib import closing

import pytest
import torch
from labelled import WHOLE, images_of, vectors_of
from torch import nn

from stopgrad.cache.store import ImageStore
from stopgrad.encoder import features
from stopgrad.encoder.features import READ_AHEAD, features_of, num_not_finite, outputs_in_order
from stopgrad.errors import ConfigError, DataError
from stopgrad.hardware import choose_precision
from stopgrad.loader.preprocess import plain_batches

CPU = torch.device("cpu")


class Gaps:
    """Images of which some cannot be read."""

    def __init__(self, source, broken):
        self.source, self.broken, self.class_names = source, broken, source.class_names

    def __len__(self):
        return len(self.source)

    def read(self, index):
        return b"no image" if index in self.broken else self.source.read(index)

    def label(self, index):
        return self.source.label(index)

    def name(self, index):
        return self.source.name(index)


def first_channel(images):
    return images[:, 0].flatten(1)


@pytest.mark.parametrize("broken", [(), (0, 1, 2, 3, 9)])
def test_rows_are_those_of_the_readable_images(broken):
    source = images_of([0, 1, 2] * 5)
    found = features_of(first_channel, WHOLE, Gaps(source, broken), CPU, batch_size=4)
    kept = [i for i in range(15) if i not in broken]
    vectors, labels = vectors_of(source)
    assert torch.allclose(found.vectors, vectors[kept], atol=1e-6)
    assert torch.equal(found.labels, labels[kept])
    assert len(found.skipped) == len(broken)


def test_a_network_that_returns_too_few_rows():
    with pytest.raises(ConfigError, match=r"returned \(1, 64\) for 4 images: needs \(4, 64\), a row an image"):
        features_of(lambda images: first_channel(images)[:1], WHOLE, images_of([0, 1] * 2), CPU)


def test_images_not_finite_are_counted_once():
    vectors = torch.zeros(20000, 3)
    vectors[5, :2], vectors[15000, 1] = torch.nan, -torch.inf
    assert num_not_finite(vectors) == 2


class Counted(Gaps):
    """Images that count how many of them were read."""

    def __init__(self, source):
        super().__init__(source, ())
        self.num_read = 0

    def read(self, index):
        self.num_read += 1
        return super().read(index)


def store_of(source):
    return ImageStore(source, WHOLE.shortest, kept=list(range(len(source))))


@pytest.fixture
def threads():
    """Three threads for torch, whatever the machine has; gives back what there was."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.fixture
def convolution():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten()).eval()


@pytest.mark.parametrize("num", [1, 5, 23])
def test_passes_side_by_side_give_what_passes_in_turn_give(convolution, threads, num):
    source = Gaps(images_of(range(num), names=[str(i) for i in range(num)]), (2, 3, 4, 5))
    together = features_of(convolution, WHOLE, source, CPU, batch_size=2)
    torch.set_num_threads(1)
    alone = features_of(convolution, WHOLE, source, CPU, batch_size=2)
    assert list(together.positions) == [i for i in range(num) if i not in (2, 3, 4, 5)]
    assert torch.equal(together.vectors, alone.vectors)
    assert torch.equal(together.labels, alone.labels)
    assert together.skipped == alone.skipped


def test_every_core_passes_batches_of_its_own(threads):
    entered = []

    def network(images):
        entered.append((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.02)
        return first_channel(images)

    features_of(network, WHOLE, images_of([0, 1] * 12), CPU, batch_size=2)
    assert len(entered) == 12
    assert {number for _, number in entered} == {1}
    assert 1 < len({thread for thread, _ in entered}) <= 3
    # Of too few batches each is split among the cores.
    entered.clear()
    features_of(network, WHOLE, images_of([0, 1]), CPU, batch_size=2)
    assert entered == [(threading.get_ident(), 3)]


def test_large_batches_pass_in_turn(threads, monkeypatch):
    entered = []

    def network(images):
        entered.append(torch.get_num_threads())
        return first_channel(images)

    monkeypatch.setattr(features, "SIDE_BY_SIDE_BYTES", 3 * 4 * 3 * 8**2 * 4 - 1)
    features_of(network, WHOLE, images_of([0, 1] * 12), CPU, batch_size=4)
    features_of(network, WHOLE, images_of([0, 1] * 12), CPU, batch_size=3)
    assert entered == [3] * 6 + [1] * 8


@pytest.mark.parametrize("num_threads", [1, 3])
def test_reading_ahead_is_bounded(threads, num_threads):
    torch.set_num_threads(num_threads)
    source = Counted(images_of([0, 1] * 100))
    with closing(outputs_in_order(first_channel, store_of(source), WHOLE, None, CPU, batch_size=2)) as batches:
        next(batches)
        time.sleep(0.2)
        # What was handed out, what waits for the network or comes from it, and what is being read.
        assert 2 < source.num_read <= 2 * (1 + 2 * num_threads + READ_AHEAD + 2)


def loaders():
    return [thread for thread in threading.enumerate() if thread.name == "stopgrad-loader"]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_what_is_left_before_the_end_leaves_nothing_behind(threads, num_threads):
    torch.set_num_threads(num_threads)
    batches = outputs_in_order(first_channel, store_of(images_of([0, 1] * 50)), WHOLE, None, CPU, batch_size=2)
    positions, (vectors,) = next(batches)
    assert positions == [0, 1]
    assert vectors.shape == (2, 64)
    batches.close()
    assert torch.get_num_threads() == num_threads
    assert not loaders()


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("where", ["network", "image", "caller"])
def test_an_error_ends_the_work(threads, num_threads, where):
    torch.set_num_threads(num_threads)
    source = Gaps(images_of([0, 1] * 20), (31,) if where == "image" else ())

    def network(images):
        if where == "network":
            raise ArithmeticError("in the network")
        return first_channel(images)

    def progress(done, total):
        if where == "caller" and done > 8:
            raise KeyboardInterrupt

    kind = {"network": ArithmeticError, "image": DataError, "caller": KeyboardInterrupt}[where]
    with pytest.raises(kind):
        features_of(network, WHOLE, source, CPU, batch_size=2, strict=True, progress=progress)
    assert torch.get_num_threads() == num_threads
    assert not loaders()


def test_work_that_goes_on_cuts_its_batches_alike():
    store = store_of(images_of([0, 1, 2] * 9))
    whole = list(outputs_in_order(first_channel, store, WHOLE, None, CPU, batch_size=4))
    rest = list(outputs_in_order(first_channel, store, WHOLE, None, CPU, batch_size=4, first_batch=3))
    assert [positions for positions, _ in rest] == [positions for positions, _ in whole[3:]]
    assert all(torch.equal(one[0], other[0]) for (_, one), (_, other) in zip(rest, whole[3:], strict=True))


def test_precision_is_that_of_the_network_alone(convolution):
    source = images_of([0, 1, 2] * 5)
    found = {p: features_of(convolution, WHOLE, source, CPU, precision=p).vectors for p in ("fp32", "bf16")}
    with torch.no_grad():
        exact = convolution(torch.cat([batch for _, batch in plain_batches(store_of(source), WHOLE)]))
    torch.testing.assert_close(found["fp32"], exact)
    assert found["bf16"].dtype == torch.float32
    assert not torch.equal(found["bf16"], found["fp32"])
    torch.testing.assert_close(found["bf16"], exact, rtol=0.02, atol=0.02)
    auto = features_of(convolution, WHOLE, source, CPU).vectors
    assert torch.equal(auto, found[choose_precision("auto", CPU)])
    with pytest.raises(ConfigError, match="precision = 'bf61' is unknown: did you mean 'bf16'"):
        features_of(convolution, WHOLE, source, CPU, precision="bf61")


def test_features_are_ordinary_tensors(convolution):
    """What is made in inference mode can be neither changed in place nor trained on."""
    source = images_of([0, 1] * 4)
    vectors = features_of(convolution, WHOLE, source, CPU).vectors
    _, (batch,) = next(outputs_in_order(convolution, store_of(source), WHOLE, None, CPU))
    for made in (vectors, batch):
        made.sub_(made.mean(dim=0))
        weights = torch.zeros(made.shape[1], requires_grad=True)
        (made @ weights).sum().backward()
        assert weights.grad is not None


def test_a_network_still_trains_after_it_was_asked(convolution):
    features_of(convolution, WHOLE, images_of([0, 1] * 4), CPU, precision="bf16")
    convolution(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in convolution.parameters())
