"""The update of the buffers against PyTorch, and against its closed forms."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.model import BatchNormSettings, ChannelStats, RunningStats
from bncli.moments import channel_stats
from bncli.running_stats import update, update_factor


def fresh(channels: int = 1, tracked: int = 0) -> RunningStats:
    return RunningStats(np.zeros(channels), np.ones(channels), tracked)


def stats_of(mean: float, var: float, count: int = 10) -> ChannelStats:
    one, zero = np.ones(1), np.zeros(1, np.int64)
    return ChannelStats(
        count=count, shift=mean * one, offset=0 * one, var=var * one, min=one, max=one,
        nan=zero, posinf=zero, neginf=zero, first_nonfinite=(None,),
    )  # fmt: skip


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.5, 1.5, -0.25, None])
@pytest.mark.parametrize("batches", [1, 2, 7])
def test_torch_does_the_same(momentum, batches):
    torch.manual_seed(0)
    module = torch.nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64)
    running = fresh(3)
    for _ in range(batches):
        x = torch.randn(4, 3, 5, 2, dtype=torch.float64) * 3 + 1
        module(x)
        running = update(running, channel_stats(x.numpy()), BatchNormSettings(momentum=momentum))
    np.testing.assert_allclose(running.running_mean, module.running_mean, rtol=1e-13)
    np.testing.assert_allclose(running.running_var, module.running_var, rtol=1e-13)
    assert running.num_batches_tracked == int(module.num_batches_tracked) == batches


@pytest.mark.parametrize("count", [2, 3, 1000])
def test_the_variance_is_the_unbiased_one(count):
    after = update(fresh(), stats_of(0.0, 3.0, count), BatchNormSettings(momentum=1.0))
    assert after.running_var[0] == pytest.approx(3.0 * count / (count - 1), rel=1e-15)


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0, 1),
    st.integers(1, 30),
    st.floats(-1e3, 1e3),
    st.floats(0, 1e3),
)
def test_equal_batches_approach_geometrically(momentum, batches, mean, var):
    """After n equal batches: running_n = batch + (1 - a)**n * (running_0 - batch)."""
    stats, running = stats_of(mean, var), fresh()
    for _ in range(batches):
        running = update(running, stats, BatchNormSettings(momentum=momentum))
    a, unbiased = Fraction(momentum), Fraction(var) * 10 / 9
    left = (1 - a) ** batches
    scale = 1e-13 * (1 + abs(mean) + var)
    assert abs(running.running_mean[0] - float(Fraction(mean) * (1 - left))) <= scale
    assert abs(running.running_var[0] - float(unbiased + left * (1 - unbiased))) <= scale


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1e3)), min_size=1, max_size=12))
def test_momentum_none_is_the_plain_average(batches):
    running = fresh()
    for mean, var in batches:
        running = update(running, stats_of(mean, var), BatchNormSettings(momentum=None))
    count = len(batches)
    mean = sum(Fraction(mean) for mean, _ in batches) / count
    var = sum(Fraction(var) * 10 / 9 for _, var in batches) / count
    assert running.running_mean[0] == pytest.approx(float(mean), rel=1e-12, abs=1e-10)
    assert running.running_var[0] == pytest.approx(float(var), rel=1e-12, abs=1e-10)
    assert running.num_batches_tracked == count


@pytest.mark.parametrize("tracked", [0, 1, 99])
def test_momentum_none_goes_on_from_the_counter(tracked):
    before = RunningStats(np.array([2.0]), np.array([3.0]), tracked)
    after = update(before, stats_of(5.0, 9.0), BatchNormSettings(momentum=None))
    n = tracked + 1
    assert after.num_batches_tracked == n
    assert after.running_mean[0] == pytest.approx((2.0 * tracked + 5.0) / n, rel=1e-14)
    assert after.running_var[0] == pytest.approx((3.0 * tracked + 10.0) / n, rel=1e-14)


@pytest.mark.parametrize(
    "settings_",
    [BatchNormSettings(training=False), BatchNormSettings(track_running_stats=False)],
)
def test_nothing_else_changes_them(settings_):
    before = fresh(1, 7)
    assert update(before, stats_of(5.0, 2.0), settings_) is before


def test_the_old_buffers_are_left_alone():
    before = fresh()
    update(before, stats_of(5.0, 2.0), BatchNormSettings())
    assert (before.running_mean[0], before.running_var[0]) == (0.0, 1.0)


def test_a_nan_reaches_the_buffers():
    after = update(fresh(), stats_of(np.nan, np.nan), BatchNormSettings())
    assert np.isnan(after.running_mean[0])
    assert np.isnan(after.running_var[0])


def test_factor():
    assert update_factor(0.1, 5) == 0.1
    assert update_factor(0.0, 5) == 0.0
    assert update_factor(None, 1) == 1.0
    assert update_factor(None, 4) == 0.25
