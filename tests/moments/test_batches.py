"""Sums over many batches against exact arithmetic, and the algebra of merging them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.errors import TensorError
from bncli.moments.batches import BatchSums, batch_part, joined, merge_sums

from .exact_batches import COUNTS, SUMS, check, check_moments, rows, same_bits, two


def summed(batches, **flags):
    """The sums of `batches`."""
    sums = BatchSums(batches[0].shape[1], **flags)
    for x in batches:
        sums.add(x)
    return sums.result()


def unlike(rng, number, channels=3):
    """Batches of different sizes, scales and means."""
    return [
        rng.standard_normal((rng.integers(1, 5), channels, rng.integers(1, 6)))
        * 10.0 ** rng.uniform(-2, 2)
        + rng.normal() * 10.0 ** rng.uniform(-2, 4)
        for _ in range(number)
    ]


def test_batches_of_different_sizes():
    for seed in range(5):
        batches = unlike(np.random.default_rng(seed), 6)
        check(summed(batches), batches)


def test_many_batches_by_fsum():
    rng = np.random.default_rng(5)
    batches = [rng.standard_normal((8, 2, 50)) + 1e6 + 1e-3 * i for i in range(300)]
    sums = summed(batches)
    for c in range(2):
        values = np.concatenate([rows(x, c).ravel() for x in batches]) - 1e6
        mean = math.fsum(values) / len(values)
        means = [math.fsum(row) / len(row) for row in (rows(x, c).ravel() - 1e6 for x in batches)]
        between = 400 * math.fsum((m - mean) ** 2 for m in means)
        assert float(two(sums, "offset", c) - 10**6) == pytest.approx(mean, rel=1e-12)
        assert sums.between[c] == pytest.approx(between, rel=1e-12)
        total = math.fsum((values - mean) ** 2)
        assert sums.within[c] + sums.between[c] == pytest.approx(total, rel=1e-12)


def test_one_value_a_channel_has_no_variance():
    sums = summed([np.array([[1.0, 2.0]]), np.array([[3.0, 2.0]])])
    assert (sums.values, sums.batches, sums.batches_with_var) == (2, 2, 0)
    assert np.isnan(sums.batch_var).all()
    np.testing.assert_array_equal(sums.within, 0)
    np.testing.assert_allclose(sums.between, [2, 0], rtol=1e-15)
    merged = merge_sums([sums, summed([np.array([[0.0, 2.0], [2.0, 4.0]])])])
    assert merged.batches_with_var == 1
    np.testing.assert_array_equal(merged.batch_var, [2, 2])


def test_a_new_extreme_takes_the_place_of_the_count():
    batches = [np.array([[1.0], [1.0], [5.0]]), np.array([[0.0], [5.0], [5.0]]), np.array([[9.0]])]
    sums = summed(batches[:2])
    assert (sums.min[0], sums.at_min[0], sums.max[0], sums.at_max[0]) == (0, 1, 5, 3)
    sums = merge_sums([summed(batches[1:]), summed(batches[:1])])
    assert (sums.min[0], sums.at_min[0], sums.max[0], sums.at_max[0]) == (0, 1, 9, 1)


def test_every_sample_as_a_batch():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((5, 3, 4, 4)) + rng.standard_normal((5, 3, 1, 1))
    check(summed([x], per_sample=True), [x[i : i + 1] for i in range(5)])


CHANGES = {
    "nothing": lambda x, i: x,
    "far from 0": lambda x, i: x + 1e6,
    "each batch elsewhere": lambda x, i: x + 1e4 * (-1) ** i,
    "constant": lambda x, i: np.full_like(x, 0.1 + i),
    "zero at times": lambda x, i: (x + 50) * (i % 2),
    "tiny": lambda x, i: x * 1e-140,
    "huge": lambda x, i: x * 1e140,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("change", CHANGES)
def test_moments_alone_are_as_exact(change, dtype):
    if dtype is np.float32 and change in {"tiny", "huge"}:
        pytest.skip("float32 has no such values")
    rng = np.random.default_rng(8)
    shapes = [(4, 3, 30), (2, 3, 300), (5, 3, 1), (3, 3, 4)]
    batches = [
        CHANGES[change](rng.standard_normal(shape), i).astype(dtype)
        for i, shape in enumerate(shapes)
    ]
    sums = summed(batches, moments_only=True)
    check_moments(sums, batches)
    assert np.isnan([sums.min, sums.max]).all()
    assert not np.any([sums.at_min, sums.at_max, sums.at_zero])
    if change == "constant":
        assert not sums.within.any()


@pytest.mark.parametrize("first", [True, False])
def test_moments_alone_count_what_is_not_finite(first):
    batches = unlike(np.random.default_rng(9), 3, channels=5)
    for channel, value in enumerate((np.nan, np.inf, -np.inf)):
        batches[0 if first else 2][0, channel, -1] = value
    batches[1][0, 3, 0] = 1e300  # its square is not, but the value is
    whole, sums = summed(batches), summed(batches, moments_only=True)
    for name in ("nan", "posinf", "neginf"):
        np.testing.assert_array_equal(getattr(sums, name), getattr(whole, name))
    np.testing.assert_allclose(sums.mean, whole.mean, rtol=1e-12)
    np.testing.assert_array_equal(np.isnan(sums.within), [True, True, True, False, False])
    assert np.isinf(sums.within[3])
    np.testing.assert_allclose(sums.within[4], whole.within[4], rtol=1e-12)
    assert np.isnan(sums.min).all()
    assert not sums.at_min.any()


def test_a_batch_of_other_channels_is_refused_after_others():
    sums = BatchSums(3, moments_only=True)
    sums.add(np.ones((4, 3)))
    with pytest.raises(TensorError, match="A batch of 2 channels came to a layer of 3"):
        sums.add(np.ones((4, 2)))


def test_every_batch_is_kept():
    batches = unlike(np.random.default_rng(7), 4)
    sums = BatchSums(3, per_batch=True)
    for x in batches:
        sums.add(x)
    kept = sums.batches()
    assert kept["count"].tolist() == [x.shape[0] * x.shape[2] for x in batches]
    for name, wanted in (
        ("mean", [x.mean(axis=(0, 2)) for x in batches]),
        ("var", [x.var(axis=(0, 2)) for x in batches]),
    ):
        assert kept[name].shape == (4, 3)
        np.testing.assert_allclose(kept[name], wanted, rtol=1e-11, atol=1e-12)


def test_nothing_is_kept_without_being_asked():
    sums = BatchSums(3)
    sums.add(np.ones((2, 3)))
    kept = sums.batches()
    assert kept["count"].shape == (0,)
    assert kept["mean"].shape == kept["var"].shape == (0, 3)


def test_results_stay_when_more_batches_come():
    sums = BatchSums(2)
    sums.add(np.array([[1.0, 2.0], [3.0, 0.0]]))
    first = sums.result()
    copy = merge_sums([first])
    sums.add(np.array([[-1.0, 9.0]]))
    assert same_bits(first, copy)
    assert first.at_zero.tolist() == [0, 1]


def test_what_does_not_fit_is_refused():
    with pytest.raises(TensorError, match="No batch has come yet"):
        BatchSums(3).result()
    with pytest.raises(TensorError, match="A batch of 2 channels came to a layer of 3"):
        BatchSums(3).add(np.zeros((4, 2)))
    with pytest.raises(TensorError, match="no sums to merge"):
        merge_sums([])
    with pytest.raises(TensorError, match="Sums of 3 and of 2 channels cannot be merged"):
        merge_sums([summed([np.zeros((4, 3))]), summed([np.zeros((4, 2))])])


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (1, 2, 3, 4)])
def test_pieces_of_a_batch_are_the_batch(cuts):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((5, 3, 4)) + 10
    x[3, 1, 2] = np.nan
    pieces = [batch_part(x[a:b]) for a, b in itertools.pairwise((0, *cuts, 5))]
    whole, found = batch_part(x), joined(pieces)
    assert (found.count, found.samples) == (whole.count, whole.samples)
    for name in ("mean", "squares", "sample_squares"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12)
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_no_pieces_are_refused():
    with pytest.raises(TensorError, match="No batch has come yet"):
        joined([])


VALUES = st.one_of(
    st.floats(-1e3, 1e3, width=32),
    st.sampled_from([0.0, 1.0, -1.0, 1e6, 1e6 + 1, math.nan, math.inf, -math.inf]),
)


@st.composite
def parted(draw):
    """Batches of two channels, and where they are cut into parts."""
    number = draw(st.integers(1, 6))
    batches = [
        np.array(
            draw(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=6)), np.float64
        ).reshape(-1, 2)
        for _ in range(number)
    ]
    parts = draw(st.lists(st.integers(0, 3), min_size=number, max_size=number))
    return batches, parts


@given(parted(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_any_order_gives_the_same_bits_and_any_split_the_same_numbers(given_batches, chance):
    batches, numbers = given_batches
    parts = [
        summed([x for x, part in zip(batches, numbers, strict=True) if part == number])
        for number in sorted(set(numbers))
    ]
    merged = merge_sums(parts)
    mixed = chance.sample(parts, len(parts))
    assert same_bits(merged, merge_sums(mixed))
    whole = summed(batches)
    half = len(mixed) // 2
    halves = merge_sums([merge_sums(mixed[: half + 1]), *mixed[half + 1 :]])
    for other in (merged, halves):
        agree(whole, other)


def agree(whole, other):
    """Assert that the same batches gave these sums."""
    for name in ("values", "samples", "batches", "batches_with_var"):
        assert getattr(whole, name) == getattr(other, name)
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(whole, name), getattr(other, name))
    for c in range(2):
        var = whole.var[c]
        if not np.isfinite(whole.mean[c]):
            np.testing.assert_array_equal(whole.mean[c], other.mean[c])
            assert np.isnan(var)
            assert np.isnan(other.var[c])
            continue
        for name in ("offset", "batch_mean"):
            one, two_ = two(whole, name, c), two(other, name, c)
            assert abs(one - two_) <= 1e-12 * max(abs(float(one)), var**0.5)
        for name in SUMS:
            power = 2 if name == "batch_var_squares" else 1
            wanted = getattr(whole, name)[c]
            assert getattr(other, name)[c] == pytest.approx(
                wanted, rel=1e-12, abs=1e-15 * var**power + 1e-300, nan_ok=True
            )
