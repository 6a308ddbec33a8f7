"""Pairs of tensors: what is read, in which order, rounded how; fits and distances by NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.dtypes import decode, encode
from bncli.loaders import open_tensor
from bncli.verify.identify import pair
from bncli.verify.identify.hypotheses import ChannelMap
from bncli.verify.identify.pair import (
    ArraySource,
    FileSource,
    View,
    fit,
    furthest,
    representable,
)


def view_of(x, y, axis=1, **more):
    return View(ArraySource(x, "float64"), ArraySource(y, "float64"), axis, **more)


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (6, 3, 4))
    return x, x * [[2.0], [-1.0], [0.5]] + [[1.0], [2.0], [3.0]] + rng.normal(0, 0.1, x.shape)


@pytest.mark.parametrize("piece", [5, 1 << 18])
@pytest.mark.parametrize("channels", [(), (2, 0, 1)])
@pytest.mark.parametrize("rounded", ["", "float16"])
def test_every_value_is_read_once(tensors, monkeypatch, piece, channels, rounded):
    monkeypatch.setattr(pair, "PIECE", piece)
    x, y = tensors
    view = view_of(x, y, channels=channels, x_dtype=rounded)
    found_x, found_y = np.full(x.shape, np.nan), np.full(y.shape, np.nan)
    for block, ours, theirs in view.read():
        assert np.isnan(found_x[block]).all()
        found_x[block], found_y[block] = ours, theirs
    expected = x[:, list(channels)] if channels else x
    if rounded:
        expected = expected.astype(np.float16)
    np.testing.assert_array_equal(found_x, expected)
    np.testing.assert_array_equal(found_y, y)
    stats = view.stats()
    np.testing.assert_allclose(stats.mean, expected.astype(np.float64).mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(stats.var, expected.astype(np.float64).var((0, 2)), rtol=1e-12)


def test_a_fit_is_least_squares(tensors):
    x, y = tensors
    x[:, 1] = 7.0
    y[0, 2, 0] = np.inf
    found = fit(view_of(x, y))
    assert found.ok.tolist() == [True, True, False]
    slope, _ = np.polyfit(x[:, 0].ravel(), y[:, 0].ravel(), 1)
    assert found.slope[0] == pytest.approx(slope, rel=1e-10)
    assert found.slope[1] == 0.0  # a constant has no slope


@pytest.mark.parametrize("rounded", ["", "bfloat16"])
def test_how_far_a_map_is_off(tensors, rounded):
    x, y = tensors
    maps = [
        ChannelMap(np.zeros(3), np.array([2.0, -1.0, 0.5]), np.array([1.0, 2.0, 3.0])),
        ChannelMap(np.array([1.0, 2.0, 3.0]), np.ones(3), np.zeros(3)),
    ]
    found = furthest(view_of(x, y, y_dtype=rounded), maps, np.array([True, True, False]))
    for row, (center, scale, bias) in enumerate(
        [(np.zeros(3), [2.0, -1.0, 0.5], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], np.ones(3), [0] * 3)]
    ):
        lay = (1, 3, 1)
        made = (x - np.reshape(center, lay)) * np.reshape(scale, lay) + np.reshape(bias, lay)
        if rounded:
            made = decode(encode(made, rounded), rounded)
        expected = np.abs(made - y).max((0, 2))
        np.testing.assert_array_equal(found[row, :2], expected[:2])
    assert (found[:, 2] == 0).all()


def test_nan_is_as_far_as_can_be():
    x = np.array([[np.nan, 1.0], [1.0, 1.0]])
    one = ChannelMap(np.zeros(2), np.ones(2), np.zeros(2))
    found = furthest(view_of(x, np.ones((2, 2))), [one], np.array([True, True]))
    assert found.tolist() == [[np.inf, 0.0]]


@pytest.mark.parametrize("spoiled", [False, True])
def test_values_of_a_narrower_dtype_are_recognised(spoiled):
    values = np.random.default_rng(0).normal(size=40_000).astype(np.float16).astype(np.float64)
    values[5] = np.nan
    if spoiled:
        values[-1] += 1e-9
    source = ArraySource(values, "float64")
    assert representable(source, "float16") == representable(source, "float32") == (not spoiled)
    assert not representable(source, "float64")


def test_a_file_is_as_an_array(save, tensors):
    x, _ = tensors
    x = x.astype(np.float32)
    for dtype in ("float32", "float16"):
        rounded = decode(encode(x, dtype), dtype)
        stored = FileSource(open_tensor(save("x.npy", x)), dtype)
        held = ArraySource(rounded, dtype)
        block = (slice(1, 4), slice(0, 3), slice(2, 4))
        moved = stored.moved(1, -1), held.moved(1, -1)
        for (one, other), strides in (((stored, held), [12, 4, 1]), (moved, [12, 1, 4])):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_array_equal(one.read(block), other.read(block))
            for source in (one, other):
                assert [source.stride(axis) for axis in range(3)] == strides
            ours, theirs = one.stats(1, None), other.stats(1, None)
            np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "axis", "rows"),
    [((8, 3), 1, True), ((8, 3, 4), 1, False), ((8, 4, 3), 2, True), ((8, 3, 1, 1), 1, True)],
)
def test_what_is_summed_row_by_row(shape, axis, rows):
    x = np.zeros(shape)
    view = view_of(x, x, axis)
    assert view.sums_by_rows == rows
    assert view.count == x.size // shape[axis]
    assert view.num_features == shape[axis]


def test_stored_channels_last_is_summed_row_by_row():
    x = np.zeros((8, 4, 3)).transpose(0, 2, 1)
    assert view_of(x, x).sums_by_rows
    one = np.zeros((8, 4, 1)).transpose(0, 2, 1)
    assert not view_of(one, one).sums_by_rows
