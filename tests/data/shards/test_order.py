import numpy as np
import pytest

from stopgrad.data.shards.order import TOGETHER, EpochOrder, Layout, draw_from, layout_of
from stopgrad.data.sources import ArraySource, Subset


def layout(counts, window, expect=lambda shards: None):
    return Layout(np.cumsum([0, *counts]), window, expect)


LAYOUTS = [
    ([10] * 20, 25), ([3, 0, 7, 1, 12, 5, 9, 2], 4), ([100], 16), ([50, 60], 1000), ([1] * 30, 5), ([7, 8, 9], 1),
]  # fmt: skip


@pytest.mark.parametrize(("counts", "window"), LAYOUTS)
def test_an_epoch_has_every_image_once(counts, window):
    order = EpochOrder(layout(counts, window), 0, 0)
    assert len(order) == sum(counts)
    assert sorted(order[:].tolist()) == list(range(sum(counts)))


@pytest.mark.parametrize(("counts", "window"), LAYOUTS)
@pytest.mark.parametrize("step", [1, 7, 64])
def test_it_is_the_same_in_parts_from_anywhere(counts, window, step):
    whole = EpochOrder(layout(counts, window), 3, 2)[:]
    again = EpochOrder(layout(counts, window), 3, 2)
    for start in reversed(range(0, len(whole), step)):
        np.testing.assert_array_equal(again[start : start + step], whole[start : start + step])


def test_it_is_a_function_of_seed_and_epoch():
    given = layout([10] * 20, 25)
    orders = [EpochOrder(given, seed, epoch)[:] for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_it_keeps_to_few_shards_at_a_time():
    order = EpochOrder(layout([10] * 100, 40), 0, 0)[:]
    assert all(len(np.unique(order[start : start + 40] // 10)) <= TOGETHER for start in range(0, 1000, 40))


def test_large_shards_are_mixed_with_each_other():
    """Though one alone fills the window."""
    order = EpochOrder(layout([1000] * 8, 200), 0, 0)[:]
    for start in range(0, 4000, 200):
        shards, counts = np.unique(order[start : start + 200] // 1000, return_counts=True)
        assert len(shards) >= 3
        assert counts.max() < 150


def test_neighbours_in_a_shard_are_parted():
    order = EpochOrder(layout([1000], 500), 0, 0)[:]
    assert (np.abs(np.diff(order)) == 1).mean() < 0.1


def test_shards_of_this_group_and_the_next_are_expected():
    told = []
    order = EpochOrder(layout([10] * 8, 40, told.append), 0, 0)
    order[:10]
    order[10:40]
    assert told == [order.groups[0] + order.groups[1]]
    order[40:41]
    assert told[1] == order.groups[1] + EpochOrder(order.layout, 0, 1).groups[0]


class Streamed(ArraySource):
    def __init__(self, counts, window):
        super().__init__(np.zeros(sum(counts)))
        self._layout = layout(counts, window)

    def layout(self):
        return self._layout


def test_a_range_of_a_source_has_a_part_of_its_layout():
    source = Streamed([10, 10, 10], 5)
    part = layout_of(Subset(source, range(5, 25)))
    assert part.starts.tolist() == [0, 5, 15, 20]
    assert sorted(EpochOrder(part, 0, 0)[:].tolist()) == list(range(20))
    assert layout_of(Subset(source, [1, 2, 3])) is None


@pytest.mark.parametrize(("counts", "num"), [([10] * 50, 20), ([10] * 50, 900), ([1000], 30), ([0, 5, 0], 9)])
def test_images_are_drawn_from_few_shards(counts, num):
    drawn = draw_from(Streamed(counts, 5), num, np.random.default_rng(0))
    assert len(np.unique(drawn)) == len(drawn) == min(num, sum(counts))
    assert drawn.min() >= 0
    assert drawn.max() < sum(counts)
    if num == 20:
        assert len(np.unique(drawn // 10)) <= 8
