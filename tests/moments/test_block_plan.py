"""Every value of a batch is in one block, and every value of a block in one run."""

import numpy as np
import pytest

from bncli.moments.block_plan import lies_by_column, places, run_shape


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("most", [1, 5, 24, 1000])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 6, 2, 3), (2, 2, 2, 3, 2)], ids=str)
def test_blocks_hold_each_value_once(shape, most, by_column):
    times = np.zeros(shape, int)
    for place in places(shape, most, by_column=by_column):
        assert times[place].size <= most
        times[place] += 1
    np.testing.assert_array_equal(times, 1)


@pytest.mark.parametrize(
    ("shape", "by_column"),
    [
        ((3, 4, 5), False),
        ((5, 2, 7), False),
        ((2, 3, 1024), False),
        ((2, 3, 8192), False),
        ((2, 3, 8191), False),
        ((9, 3, 255), False),
        ((3, 9, 4), True),
        ((1, 4096, 3), True),
        ((2, 7, 600), True),
    ],
)
def test_a_run_has_one_channel(shape, by_column):
    channels = shape[-1] if by_column else shape[1]
    x = np.broadcast_to(np.arange(channels) if by_column else np.arange(channels)[:, None], shape)
    runs, axis, swap = run_shape(shape, by_column=by_column)
    low, high = x.reshape(runs).min(axis), x.reshape(runs).max(axis)
    np.testing.assert_array_equal(low, high)
    low = low.swapaxes(1, 2) if swap else low
    assert low.shape[1] == channels
    np.testing.assert_array_equal(low[0, :, 0], np.arange(channels))


def test_the_shortest_step_decides():
    x = np.zeros((2, 3, 4, 5))
    assert not lies_by_column(x.shape, x.strides)
    last = np.moveaxis(np.zeros((2, 4, 5, 3)), -1, 1)
    assert lies_by_column(last.shape, last.strides)
    assert not lies_by_column((4, 1, 3), (3, 1, 1))
