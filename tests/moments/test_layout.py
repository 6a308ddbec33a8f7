"""The axes of a tensor in memory order, and the pieces that it is cut into."""

import numpy as np
import pytest

from bncli.moments import layout


def strides_of(array):
    return tuple(step // array.itemsize for step in array.strides)


def test_cut_covers_each_value_once():
    for shape in [(5,), (4, 3), (2, 3, 4, 5), (7, 1, 9)]:
        for limit in (1, 2, 5, 11, 1000):
            strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
            for span in (None, 0, 3, 17):
                box = layout.Box((0,) * len(shape), shape)
                seen = np.zeros(shape, int)
                pieces = layout.Cut(box, strides, limit, span)
                for piece in pieces:
                    seen[piece.slices] += 1
                    size = int(np.prod(piece.shape))
                    assert size <= pieces.values <= limit
                    reach = sum((n - 1) * s for n, s in zip(piece.shape, strides, strict=True))
                    assert reach <= pieces.span
                    assert span is None or reach <= span
                assert (seen == 1).all()


@pytest.mark.parametrize("tile", [7, 11, 19])
def test_no_tile_is_larger_than_the_buffers(tile, cut):
    """A shorter last task may be cut into longer tiles than the others are."""
    cut(30, tile)
    for n in range(1, 120):
        for shape, strides in [((n, 1), (1, 1)), ((n, 3), (3, 1)), ((n, 2, 2), (4, 2, 1))]:
            plan = layout.Layout(shape, strides, 1)
            sizes = [int(np.prod(piece.shape)) for task in plan.tasks for piece in plan.tiles(task)]
            assert sum(sizes) == np.prod(shape)
            assert max(sizes) <= plan.tile_values <= tile


SHAPE = (3, 4, 1, 5, 2)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 3, 1)])
@pytest.mark.parametrize("channel_axis", range(5))
@pytest.mark.parametrize("sample_axis", [None, 0])
def test_axes_and_the_c_order_of_every_element(order, channel_axis, sample_axis, cut):
    """Each element is in one tile, under the index that NumPy gives it in C order."""
    cut(20, 7)
    flat = np.arange(120)
    x = np.empty([SHAPE[axis] for axis in order], int).transpose(np.argsort(order))
    x[...] = flat.reshape(SHAPE)
    plan = layout.Layout(SHAPE, strides_of(x), channel_axis, sample_axis=sample_axis)
    assert plan.axes[plan.channel].size == SHAPE[channel_axis]
    if sample_axis is None or sample_axis == channel_axis:
        assert plan.sample is None
    else:
        assert plan.axes[plan.sample].size == SHAPE[sample_axis]
    memory = np.lib.stride_tricks.as_strided(
        x, plan.shape, [8 * step for step in plan.strides], writeable=False
    )
    seen = []
    for task in plan.tasks:
        for tile in plan.tiles(task):
            before, channel, behind = plan.c_order(tile)
            places = before[:, None, None] + channel[:, None] + behind
            assert np.array_equal(places.reshape(-1), memory[tile.slices].reshape(-1))
            assert np.array_equal(np.unique(channel // channel_step(channel_axis)), np.arange(
                tile.starts[plan.channel], tile.stops[plan.channel]))  # fmt: skip
            seen.extend(places.reshape(-1).tolist())
    assert sorted(seen) == flat.tolist()


def channel_step(axis):
    return int(np.prod(SHAPE[axis + 1 :]))


def test_axes_that_lie_together_are_one():
    plan = layout.Layout((2, 3, 4, 5), (60, 20, 5, 1), 1)
    assert (plan.shape, plan.strides, plan.channel) == ((2, 3, 20), (60, 20, 1), 1)
    last = layout.Layout((2, 4, 5, 3), (60, 15, 3, 1), 3)
    assert (last.shape, last.strides, last.channel) == ((40, 3), (3, 1), 1)
    gaps = layout.Layout((2, 3, 4, 5), (90, 30, 6, 1), 1)
    assert gaps.shape == (2, 3, 4, 5)
    one = layout.Layout((7, 1, 4), (4, 999, 1), 1)
    assert (one.shape, one.strides[1:], one.channel) == ((1, 28), (1,), 0)


def test_a_tile_spans_no_more_of_a_file_than_it_may():
    plan = layout.Layout((50, 3, 40), (1000, 100, 1), 1, max_span=120)
    assert plan.tile_span <= 120
    assert all(tile.shape[0] == 1 for task in plan.tasks for tile in plan.tiles(task))


def test_no_task_has_more_channels_than_its_bound(cut, monkeypatch):
    cut(1000, 500)
    monkeypatch.setattr(layout, "TASK_CHANNELS", 100)
    for shape, strides in [((4, 950), (950, 1)), ((1, 350, 3), (1050, 3, 1)), ((950, 4), (4, 1))]:
        for axis in (0, 1):
            plan = layout.Layout(shape, strides, axis)
            seen = np.zeros(plan.shape, int)
            for task in plan.tasks:
                seen[task.slices] += 1
                assert task.shape[plan.channel] <= 100
            assert (seen == 1).all()


def test_axes_that_are_neighbours_in_c_order_are_one_part():
    plan = layout.Layout((5, 4, 3, 2), (24, 6, 2, 1), 1)
    assert [axis.parts for axis in plan.axes] == [((5, 24),), ((4, 6),), ((6, 1),)]
