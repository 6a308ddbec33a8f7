"""The norms' mathematics: against math.fsum, and the equalities between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli import norms as module
from bncli.moments import channel_stats
from bncli.norms import (
    BATCH,
    GROUP,
    INSTANCE,
    LAYER,
    RMS,
    chunks,
    default_groups,
    describe,
    largest_change,
    norm_statistics,
    of_channels,
    samples_noise,
)


def named(shape, name, *, channel_axis=1, groups=1, normalized=None, eps=None):
    normalized = len(shape) - 1 if normalized is None else normalized
    found = describe(
        shape, channel_axis, groups=groups, normalized=normalized, eps=eps, rms_eps=2.0**-23
    )
    (norm,) = [norm for norm in found if norm.name == name]
    return norm


def output(norm, x):
    whole = tuple(slice(0, size) for size in x.shape)
    return norm_statistics(norm, x).output(x, whole)


def random(*shape, seed=0, mean=0.5):
    return np.random.default_rng(seed).normal(mean, 2.0, shape)


@st.composite
def tensors(draw, least_rank=3):
    """Normal values in (N, C, ...), with a divisor of C."""
    rank = draw(st.integers(least_rank, 5))
    shape = [draw(st.integers(1, 4)), draw(st.integers(1, 6))]
    shape += [draw(st.integers(1, 4)) for _ in range(rank - 2)]
    if rank > 2:
        shape[-1] += 1
    channels = shape[1]
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    mean = draw(st.sampled_from([0.0, 1.0, -300.0]))
    return random(*shape, seed=draw(st.integers(0, 2**32)), mean=mean), groups


# ---------------------------------------------------------------------------- shapes


# The axes that each norm reduces and the shape of its statistics, by layout: N 2, C 6, L 5, H 3,
# W 4, D 7. The table of Wu and He's figure 2, and PyTorch's documentation of each module.
LAYOUTS = {
    "(N, C)": ((2, 6), 1, [(0,), (1,), (), (1,), (1,)], [(6,), (2,), (2, 6), (2, 3), (2,)]),
    "(N, C, L)": (
        (2, 6, 5), 1,
        [(0, 2), (1, 2), (2,), (1, 2), (1, 2)],
        [(6,), (2,), (2, 6), (2, 3), (2,)],
    ),
    "(N, C, H, W)": (
        (2, 6, 3, 4), 1,
        [(0, 2, 3), (1, 2, 3), (2, 3), (1, 2, 3), (1, 2, 3)],
        [(6,), (2,), (2, 6), (2, 3), (2,)],
    ),
    "(N, C, D, H, W)": (
        (2, 6, 7, 3, 4), 1,
        [(0, 2, 3, 4), (1, 2, 3, 4), (2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)],
        [(6,), (2,), (2, 6), (2, 3), (2,)],
    ),
    "(N, T, C)": (
        (2, 5, 6), 2,
        [(0, 1), (2,), (1,), (1, 2), (2,)],
        [(6,), (2, 5), (2, 6), (2, 3), (2, 5)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_axes_and_shapes(layout):
    shape, axis, axes, statistics = LAYOUTS[layout]
    normalized = 1 if axis == len(shape) - 1 else len(shape) - 1
    found = describe(shape, axis, groups=3, normalized=normalized, eps=None, rms_eps=0.5)
    assert [norm.name for norm in found] == [BATCH, LAYER, INSTANCE, GROUP, RMS]
    assert [norm.axes for norm in found] == axes
    assert [norm.statistics_shape for norm in found] == statistics
    for norm in found:
        assert norm.count * math.prod(norm.statistics_shape) == math.prod(shape)
    by_shape = [shape[axis] for axis in axes[1]]
    assert [list(norm.affine_shape) for norm in found] == [[6], by_shape, [6], [6], by_shape]
    assert [norm.eps for norm in found] == [1e-5, 1e-5, 1e-5, 1e-5, 0.5]
    assert [norm.eps_given for norm in found] == [False] * 5


@pytest.mark.parametrize(
    ("shape", "groups", "refused"),
    [
        ((4, 6), 3, [INSTANCE]),
        ((4, 6, 1), 3, [INSTANCE]),
        ((4, 6, 2), 6, []),
        ((1, 6), 3, [BATCH, INSTANCE]),
        ((1, 6), 6, [BATCH, INSTANCE, GROUP]),
        ((2, 6), 6, [INSTANCE]),
        ((1, 6, 2), 6, []),
        ((1, 1), 1, [BATCH, INSTANCE, GROUP]),
    ],
)
def test_one_value_a_statistic_is_refused(shape, groups, refused):
    found = describe(shape, 1, groups=groups, normalized=len(shape) - 1, eps=None, rms_eps=1.0)
    assert [norm.name for norm in found if norm.refused] == refused


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (7, 1), (64, 32), (96, 32), (100, 25), (1000, 25)],
)
def test_default_groups_divide_and_are_no_instances(channels, groups):
    assert default_groups(channels) == groups


# ---------------------------------------------------------------------------- numbers


def exactly(values, eps, *, subtract=True):
    """A row normalised with sums that are rounded once."""
    mean = math.fsum(values) / len(values) if subtract else 0.0
    var = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / math.sqrt(var + eps) for value in values]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [BATCH, LAYER, INSTANCE, GROUP, RMS])
def test_outputs_are_exact(layout, name):
    shape, axis, *_ = LAYOUTS[layout]
    if name == INSTANCE and len(shape) == 2:
        return
    normalized = 1 if axis == len(shape) - 1 else len(shape) - 1
    x = random(*shape)
    norm = named(shape, name, channel_axis=axis, groups=3, normalized=normalized, eps=1e-3)
    y = output(norm, x)
    member = np.zeros(shape, int)  # which statistic each value belongs to
    for place in np.ndindex(shape):
        channel = place[axis]
        key = {
            BATCH: (channel,),
            LAYER: place[: len(shape) - normalized],
            RMS: place[: len(shape) - normalized],
            INSTANCE: (place[0], channel),
            GROUP: (place[0], channel // 2),
        }[name]
        member[place] = hash(key) % 10**12
    for label in np.unique(member):
        chosen = member == label
        expected = exactly(x[chosen].tolist(), 1e-3, subtract=name != RMS)
        np.testing.assert_allclose(y[chosen], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("normalized", [1, 2, 3])
@pytest.mark.parametrize("channel_axis", [1, 2, 3])
def test_layer_norm_takes_the_last_axes_wherever_the_channels_are(normalized, channel_axis):
    x = random(3, 4, 5, 2)
    norm = named(x.shape, LAYER, channel_axis=channel_axis, normalized=normalized)
    axes = tuple(range(4 - normalized, 4))
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(output(norm, x), expected, rtol=1e-12, atol=1e-13)
    assert norm.affine_shape == x.shape[4 - normalized :]


@settings(max_examples=60, deadline=None)
@given(tensors(least_rank=2))
def test_group_norm_of_one_group_is_layer_norm_of_all_channels(drawn):
    x, _ = drawn
    group = output(named(x.shape, GROUP, groups=1), x)
    np.testing.assert_allclose(group, output(named(x.shape, LAYER), x), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(tensors())
def test_group_norm_of_single_channels_is_instance_norm(drawn):
    x, _ = drawn
    group = output(named(x.shape, GROUP, groups=x.shape[1]), x)
    np.testing.assert_array_equal(group, output(named(x.shape, INSTANCE), x))


@settings(max_examples=60, deadline=None)
@given(tensors())
def test_batch_norm_of_one_sample_is_instance_norm(drawn):
    x = drawn[0][:1]
    batch = output(named(x.shape, BATCH), x)
    np.testing.assert_allclose(batch, output(named(x.shape, INSTANCE), x), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(tensors(least_rank=2))
def test_rms_norm_is_layer_norm_where_the_mean_is_0(drawn):
    x, _ = drawn
    x = np.concatenate((x, -x), axis=-1)  # of mean 0, exactly
    rms = output(named(x.shape, RMS, eps=1e-5), x)
    np.testing.assert_allclose(rms, output(named(x.shape, LAYER), x), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(tensors())
def test_only_rms_norm_feels_a_shift(drawn):
    """Powers of two and sums without rounding: the output stays, but for RMSNorm's."""
    x, groups = np.round(drawn[0] * 64) / 64, drawn[1]
    for name in (BATCH, LAYER, INSTANCE, GROUP):
        norm = named(x.shape, name, groups=groups)
        np.testing.assert_allclose(output(norm, x + 512), output(norm, x), rtol=1e-9, atol=1e-9)
    norm = named(x.shape, RMS)
    assert np.abs(output(norm, x + 512) - output(norm, x)).max() > 1e-3


def test_group_norm_stands_between():
    """Every group's output has mean 0, and mean square var / (var + eps)."""
    x = random(3, 6, 4, 2)
    y = output(named(x.shape, GROUP, groups=3), x).reshape(3, 3, -1)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-14)
    var = x.reshape(3, 3, -1).var(-1)
    np.testing.assert_allclose((y**2).mean(-1), var / (var + 1e-5), rtol=1e-12)


@pytest.mark.parametrize("name", [LAYER, INSTANCE, GROUP, RMS])
@pytest.mark.parametrize("channel_axis", [1, -1])
def test_samples_in_runs_are_samples_at_once(monkeypatch, name, channel_axis):
    x = random(7, 4, 6)
    axis = channel_axis % 3
    norm = named(x.shape, name, channel_axis=axis, groups=2, normalized=2)
    at_once = norm_statistics(norm, x)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 50)
    assert [part.stop - part.start for part in chunks(x.shape)] == [2, 2, 2, 1]
    in_runs = norm_statistics(norm, x)
    for key in ("mean", "var", "min", "max", "invstd"):
        np.testing.assert_allclose(getattr(in_runs, key), getattr(at_once, key), rtol=1e-13)


def test_a_sample_is_never_cut(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 3)
    assert [part.start for part in chunks((4, 9))] == [0, 1, 2, 3]


def test_far_means_keep_their_digits():
    x = random(3, 2, 50) + 1e9
    y = output(named(x.shape, LAYER), x)
    np.testing.assert_allclose(y, output(named(x.shape, LAYER), x - 1e9), rtol=1e-8, atol=1e-8)


def test_nan_and_infinity_stay_where_they_are():
    x = random(3, 4, 5)
    x[1, 2, 3] = np.nan
    x[2, 0, 0] = np.inf
    lost = {
        LAYER: np.array([0, 20, 20]),
        INSTANCE: np.array([0, 5, 5]),
        GROUP: np.array([0, 10, 10]),
        RMS: np.array([0, 20, 1]),  # the mean square is infinite: all but the infinity become 0
    }
    for name, counts in lost.items():
        y = output(named(x.shape, name, groups=2), x)
        np.testing.assert_array_equal(np.isnan(y).sum((1, 2)), counts)


# ---------------------------------------------------------------------------- the batch


def test_the_largest_change_is_that_of_the_outputs():
    x = random(5, 3, 4)
    norm = named(x.shape, BATCH)
    whole = of_channels(norm, channel_stats(x))
    without = of_channels(norm, channel_stats(x[:-1]))

    def by_hand(values):
        mean = values.mean((0, 2), keepdims=True)
        return (x[:-1] - mean) / np.sqrt(values.var((0, 2), keepdims=True) + 1e-5)

    expected = np.abs(by_hand(x) - by_hand(x[:-1])).max()
    assert largest_change(whole, without) == pytest.approx(expected, rel=1e-12)


def test_the_largest_change_of_nothing_but_nan_is_unknown():
    x = np.full((3, 2), np.nan)
    both = of_channels(named(x.shape, BATCH), channel_stats(x))
    assert largest_change(both, both) is None


@pytest.mark.parametrize("shape", [(12, 3), (6, 3, 7), (5, 2, 3, 4)])
def test_noise_is_what_leaving_out_each_sample_shows(shape):
    """The mean's jackknife exactly; the variance's to first order in 1/N."""
    x = random(*shape)
    stats = channel_stats(x)
    mean_error, var_error = samples_noise(stats, shape, 1, lambda part: x[part])
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    means, variances = [], []
    for left_out in range(len(x)):
        rest = np.delete(x, left_out, axis=0)
        means.append(rest.mean(axes))
        variances.append(rest.var(axes))
    factor = (len(x) - 1) / len(x)
    by_hand = [
        np.sqrt(factor * ((np.array(each) - np.mean(each, 0)) ** 2).sum(0))
        for each in (means, variances)
    ]
    np.testing.assert_allclose(mean_error, by_hand[0], rtol=1e-10)
    np.testing.assert_allclose(var_error, by_hand[1], rtol=0.35)


def test_noise_agrees_with_the_formula_where_values_are_independent():
    """And is larger by the root of the values that go together."""
    x = np.random.default_rng(1).normal(3.0, 2.0, (4000, 2, 5))
    for values, factor in ((x, 1.0), (np.repeat(x[:, :, :1], 5, axis=2), math.sqrt(5))):
        stats = channel_stats(values)
        mean_error, var_error = samples_noise(
            stats, values.shape, 1, lambda part, values=values: values[part]
        )
        m = stats.count
        np.testing.assert_allclose(mean_error / 2.0, factor / math.sqrt(m), rtol=0.06)
        np.testing.assert_allclose(var_error / 4.0, factor * math.sqrt(2 / m), rtol=0.12)


def test_noise_of_channels_last():
    x = random(6, 4, 3)
    first = samples_noise(channel_stats(x, 2), x.shape, 2, lambda part: x[part])
    moved = np.moveaxis(x, 2, 1)
    second = samples_noise(channel_stats(moved, 1), moved.shape, 1, lambda part: moved[part])
    np.testing.assert_allclose(first, second, rtol=1e-12)
