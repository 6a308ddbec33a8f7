"""Forward and backward against fractions and PyTorch's float64 autograd; blocks cover all."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.batchnorm import BlockNormalizer, along, blocks, gradient_sums, normalization
from bncli.model import BatchNormSettings, RunningStats
from bncli.moments import channel_stats

SHAPES = [(6, 3), (4, 3, 5), (3, 2, 4, 5), (2, 3, 2, 3, 2)]


def whole(shape):
    return tuple(slice(0, size) for size in shape)


def layer(channels, seed=1):
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(2, channels))
    return weight, bias, RunningStats(rng.normal(size=channels), rng.uniform(0.5, 3, channels), 0)


# ---------------------------------------------------------------------------- forward


def test_forward_is_exact_arithmetic_rounded():
    """(x - mean) / sqrt(var + eps) * weight + bias, in fractions but for the root."""
    x = np.random.default_rng(0).normal(3, 2, (7, 2))
    weight, bias = np.array([1.5, -0.25]), np.array([0.125, 3.0])
    norm = normalization(channel_stats(x), None, weight, bias, BatchNormSettings())
    y = BlockNormalizer(norm, 2, 1).output(x, whole(x.shape))
    for c in range(2):
        values = [Fraction(value) for value in x[:, c]]
        mean = sum(values) / 7
        var = sum((value - mean) ** 2 for value in values) / 7
        assert norm.mean[c] == pytest.approx(float(mean), rel=1e-15)
        assert norm.var[c] == pytest.approx(float(var), rel=1e-15)
        invstd = 1 / math.sqrt(var + Fraction(1e-5))
        assert norm.invstd[c] == pytest.approx(invstd, rel=1e-15)
        for actual, value in zip(y[:, c], values, strict=True):
            expected = float((value - mean) * Fraction(invstd) * Fraction(weight[c])) + bias[c]
            assert actual == pytest.approx(expected, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_forward_is_that_of_torch(shape, training):
    x = np.random.default_rng(0).normal(3, 2, shape)
    weight, bias, running = layer(shape[1])
    chosen = BatchNormSettings(training=training)
    norm = normalization(channel_stats(x), running, weight, bias, chosen)
    y = BlockNormalizer(norm, len(shape), 1).output(x, whole(shape))
    expected = torch.nn.functional.batch_norm(
        torch.from_numpy(x), torch.from_numpy(running.running_mean.copy()),
        torch.from_numpy(running.running_var.copy()), torch.from_numpy(weight),
        torch.from_numpy(bias), training=training,
    )  # fmt: skip
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)


def test_a_mean_far_from_0_costs_no_digits():
    offset = 2.0**40
    x = np.random.default_rng(0).integers(-1000, 1000, (64, 1)) / 8.0
    near = normalization(channel_stats(x), None, None, None, BatchNormSettings())
    far = normalization(channel_stats(x + offset), None, None, None, BatchNormSettings())
    np.testing.assert_allclose(
        BlockNormalizer(far, 2, 1).output(x + offset, whole(x.shape)),
        BlockNormalizer(near, 2, 1).output(x, whole(x.shape)),
        rtol=1e-12, atol=1e-13,
    )  # fmt: skip


@pytest.mark.parametrize("running_var", [-1e-5, -1.0, np.nan, np.inf, 0.0])
def test_a_hopeless_running_var_gives_what_torch_gives(running_var):
    x = np.array([[1.0, 1.0], [2.0, 2.0], [-3.0, 0.5]])
    running = RunningStats(np.array([1.0, 2.0]), np.array([running_var, 1.0]), 0)
    chosen = BatchNormSettings(training=False)
    norm = normalization(channel_stats(x), running, None, None, chosen)
    y = BlockNormalizer(norm, 2, 1).output(x, whole(x.shape))
    expected = torch.nn.functional.batch_norm(
        torch.from_numpy(x), torch.from_numpy(running.running_mean),
        torch.from_numpy(running.running_var),
    )  # fmt: skip
    np.testing.assert_allclose(y, expected, rtol=1e-13)


def test_evaluation_without_statistics_is_a_bug():
    chosen = BatchNormSettings(training=False)
    with pytest.raises(ValueError, match="needs them"):
        normalization(channel_stats(np.ones((3, 2))), None, None, None, chosen)


def test_along_broadcasts_on_the_axis():
    values = np.arange(3.0)
    assert along(values, 4, 1).shape == (1, 3, 1, 1)
    assert along(values, 4, -1).shape == (1, 1, 1, 3)
    np.testing.assert_array_equal(along(values, 2, 1)[0], values)


# ---------------------------------------------------------------------------- backward


def gradients(x, g, chosen, channel_axis=1, block_elements=None, monkeypatch=None):
    """bncli's gradients of input, weight and bias."""
    weight, bias, running = layer(x.shape[channel_axis])
    stats = channel_stats(x, channel_axis)
    norm = normalization(stats, running, weight, bias, chosen)
    sums = gradient_sums(x, g, norm, channel_axis)
    normalizer = BlockNormalizer(norm, x.ndim, channel_axis)
    grad = np.empty_like(x)
    for block in blocks(x.shape):
        grad[block] = normalizer.grad_input(x[block], g[block], sums, stats.count, block, chosen)
    return grad, sums


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_backward_is_that_of_torch(shape, training):
    rng = np.random.default_rng(0)
    x, g = rng.normal(3, 2, shape), rng.normal(size=shape)
    grad, sums = gradients(x, g, BatchNormSettings(training=training))
    weight, bias, running = layer(shape[1])
    leaves = [torch.from_numpy(array).requires_grad_() for array in (x, weight, bias)]
    torch.nn.functional.batch_norm(
        leaves[0], torch.from_numpy(running.running_mean), torch.from_numpy(running.running_var),
        leaves[1], leaves[2], training=training,
    ).backward(torch.from_numpy(g))  # fmt: skip
    np.testing.assert_allclose(grad, leaves[0].grad, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(sums.g_x_hat, leaves[1].grad, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(sums.g, leaves[2].grad, rtol=1e-12, atol=1e-13)


def test_backward_is_the_slope_of_forward():
    """Central differences: no other implementation is asked."""
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    chosen = BatchNormSettings()
    grad, _ = gradients(x, g, chosen)
    weight, bias, _ = layer(2)

    def loss(values):
        norm = normalization(channel_stats(values), None, weight, bias, chosen)
        return (BlockNormalizer(norm, 2, 1).output(values, whole(x.shape)) * g).sum()

    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-5
        slope = (loss(x + step) - loss(x - step)) / 2e-5
        assert grad[index] == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("channel_axis", [0, 1, 2])
def test_sums_over_blocks_are_those_over_the_whole(channel_axis, monkeypatch):
    rng = np.random.default_rng(0)
    x, g = rng.normal(2, 3, (5, 4, 6)), rng.normal(size=(5, 4, 6))
    chosen = BatchNormSettings()
    grad, sums = gradients(x, g, chosen, channel_axis)
    axes = tuple(axis for axis in range(3) if axis != channel_axis)
    x_hat = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    for actual, expected in (
        (sums.g, g.sum(axes)),
        (sums.g_x_hat, (g * x_hat).sum(axes)),
        (sums.g_squared, (g**2).sum(axes)),
        (sums.g_x_hat_squared, (g**2 * x_hat**2).sum(axes)),
        (sums.g_max, np.abs(g).max(axes)),
        (sums.x_hat_max, np.abs(x_hat).max(axes)),
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)
    monkeypatch.setattr(blocks, "__defaults__", (7,))
    in_blocks, again = gradients(x, g, chosen, channel_axis)
    np.testing.assert_allclose(again.g_x_hat, sums.g_x_hat, rtol=1e-12)
    np.testing.assert_allclose(in_blocks, grad, rtol=1e-11, atol=1e-13)


# ---------------------------------------------------------------------------- blocks


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(1, 60))
def test_blocks_cover_exactly_and_in_order(shape, most):
    order = np.arange(math.prod(shape)).reshape(shape)
    seen = []
    for block in blocks(tuple(shape), most):
        assert len(block) == len(shape)
        assert all(part.step is None and part.start is not None for part in block)
        piece = order[block]
        assert 0 < piece.size <= most or math.prod(shape) == 0
        seen.append(piece.reshape(-1))
    np.testing.assert_array_equal(np.concatenate(seen or [order.reshape(-1)]), order.reshape(-1))


def test_blocks_are_as_large_as_they_may_be():
    assert len(list(blocks((4, 3, 5), 60))) == 1
    assert len(list(blocks((4, 3, 5), 59))) == 2
    assert len(list(blocks((4, 3, 5), 15))) == 4
    assert len(list(blocks((4, 3, 5), 1))) == 60


def test_a_block_is_8_mib_as_float64():
    sizes = [math.prod(part.stop - part.start for part in block) for block in blocks((3, 3 << 19))]
    assert 8 * max(sizes) == 8 * 1024 * 1024
