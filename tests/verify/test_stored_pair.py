"""Two stored tensors against NumPy's own differences, in any order of reading."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.errors import TensorError
from bncli.loaders import open_tensor
from bncli.verify import stored_pair
from bncli.verify.stored_pair import check_pair, compare_stored, expected_stats, looser

TOLERANCE = (1e-3, 1e-2)


@pytest.fixture
def stored(save):
    def stored(name, values):
        return open_tensor(save(f"{name}.npy", values))

    return stored


@pytest.fixture
def pair(stored):
    rng = np.random.default_rng(0)
    expected = rng.normal(0, 10, (5, 3, 4)).astype(np.float32)
    actual = expected + rng.normal(0, 0.02, expected.shape).astype(np.float32)
    return actual, expected, stored("a", actual), stored("e", expected)


@pytest.mark.parametrize("piece", [1, 7, 1 << 17])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_channel_and_the_whole(pair, monkeypatch, axis, piece):
    monkeypatch.setattr(stored_pair, "PIECE", piece)
    ours, theirs, actual, expected = pair
    done = []
    found = compare_stored(
        actual, expected, "y", axis, TOLERANCE, equal_nan=False, advance=done.append
    )
    diff = np.abs(ours.astype(np.float64) - theirs)
    used = diff / (TOLERANCE[1] + TOLERANCE[0] * np.abs(theirs.astype(np.float64)))
    assert sum(done) == ours.nbytes + theirs.nbytes
    for part, item in [((slice(None),) * 3, found.whole)] + [
        ((slice(None),) * axis + (slice(c, c + 1),), item) for c, item in enumerate(found.channels)
    ]:
        assert item.max_abs_diff == diff[part].max()
        assert item.mismatched == (used[part] > 1).sum()
        assert item.used == used[part].max() == used[item.index]
        assert item.total == diff[part].size
    sizes = np.abs(theirs).max(tuple(other for other in range(3) if other != axis))
    assert found.sizes == tuple(sizes.astype(np.float64))
    assert 0 < found.whole.mismatched < found.whole.total


def test_many_channels_are_compared_as_a_whole(pair, monkeypatch):
    monkeypatch.setattr(stored_pair, "MOST_CHANNELS", 3)
    _, theirs, actual, expected = pair
    by_channel = compare_stored(actual, expected, "y", 1, TOLERANCE, equal_nan=False)
    assert len(by_channel.channels) == 3
    whole = compare_stored(actual, expected, "y", 0, TOLERANCE, equal_nan=False)
    assert whole.channels == ()
    assert whole.whole == by_channel.whole
    assert whole.sizes == (float(np.abs(theirs).max()),)


def test_a_size_is_that_of_what_is_finite(stored):
    theirs = stored("e", np.array([[1.0, np.inf], [-2.0, np.nan]]))
    found = compare_stored(theirs, theirs, "y", 1, (0.0, 0.0), equal_nan=True)
    assert found.whole.passed
    assert found.sizes == (2.0, 0.0)
    assert not compare_stored(theirs, theirs, "y", 1, (0.0, 0.0), equal_nan=False).whole.passed


def test_a_scalar_is_one_channel_and_nothing_is_none(stored):
    one, none = stored("s", np.array(2.5)), stored("n", np.zeros((0, 3)))
    found = compare_stored(one, one, "y", 0, (0.0, 0.0), equal_nan=False)
    assert (len(found.channels), found.whole.total, found.sizes) == (1, 1, (2.5,))
    found = compare_stored(none, none, "y", 1, (0.0, 0.0), equal_nan=False)
    assert (found.whole.total, found.sizes) == (0, (0.0, 0.0, 0.0))


def test_what_cannot_be_compared_is_refused(stored):
    x, other = stored("x", np.zeros((2, 3))), stored("o", np.zeros((3, 2)))
    check_pair(x, x)
    with pytest.raises(TensorError, match=r"\[2, 3\] and o.npy \[3, 2\]"):
        check_pair(x, other)
    with pytest.raises(TensorError, match="save its real and imaginary parts"):
        check_pair(x, stored("c", np.zeros((2, 3), complex)))


def test_the_looser_dtype_keeps_fewer_digits(stored):
    half, single = stored("h", np.zeros(2, np.float16)), stored("f", np.zeros(2, np.float32))
    whole = stored("i", np.zeros(2, np.int64))
    assert looser(half, single) == looser(single, half) == "float16"
    assert looser(whole, single) == looser(single, whole) == "float32"
    assert looser(whole, whole) == "int64"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_the_statistics_of_expected(stored, dtype):
    values = np.random.default_rng(0).normal(0, 50, (6, 3)).astype(dtype)
    found = expected_stats(stored("e", values), 1)
    np.testing.assert_allclose(found.mean, values.astype(np.float64).mean(0), rtol=1e-12)
    whole = stored("i", np.array([[2**24 + 1, 0], [2**24 + 1, 0]]))  # which float32 rounds
    assert expected_stats(whole, 1).mean[0] == 2**24 + 1
    assert expected_stats(stored("v", np.zeros(4)), 0) is None
    assert expected_stats(stored("n", np.zeros((0, 4))), 1) is None


@pytest.mark.parametrize(
    ("shape", "other", "axes"),
    [
        ((8, 6, 5, 5), (8, 5, 5, 6), (-1, 1)),
        ((8, 5, 5, 6), (8, 6, 5, 5), (1, -1)),
        ((8, 6, 7), (8, 7, 6), (-1, 1)),
        ((2, 3, 4, 5, 6), (2, 4, 5, 6, 3), (-1, 1)),
        ((8, 6), (6, 8), None),
        ((8, 6, 5, 5), (8, 5, 6, 7), None),
        ((8, 6, 5, 5), (8, 6, 5), None),
        ((8, 6, 5, 5), (6, 8, 5, 5), None),
    ],
)
def test_channels_on_another_axis_are_named_with_the_axes(stored, shape, other, axes):
    actual, expected = np.zeros(shape, np.float32), np.zeros(other, np.float32)
    with pytest.raises(TensorError) as told:
        check_pair(stored("a", actual), stored("e", expected))
    said = str(told.value)
    if axes is None:
        assert "moveaxis" not in said
        return
    assert f"np.moveaxis(EXPECTED, {axes[0]}, {axes[1]})" in said
    assert np.moveaxis(expected, *axes).shape == shape
