"""Biased and unbiased variances are told apart, with the n between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.changes.states.conventions import find
from bncli.changes.states.conventions.bessel import counts, one_count
from bncli.report import Certainty
from tests.changes.pairs import NO_FILES, pair, random_layer, side
from tests.changes.states.conventions.layers import made, updated


def times(ratio):
    return lambda layer: {"running_var": layer["running_var"] * ratio}


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("n", [12, 128, 500])
def test_n_is_exact_where_rounding_leaves_one(n, forward):
    found = find(made(times(n / (n - 1)), forward=forward), NO_FILES)
    assert found.certainty is Certainty.CERTAIN
    assert found.numbers["n"] == n
    assert found.numbers["unbiased_file"] == ("second" if forward else "first")
    one, other = ("unbiased", "biased") if forward else ("biased", "unbiased")
    assert found.what == f"the variance is {one} where the first file's is {other}, n = {n}"


def test_the_hint_puts_the_variance_right():
    found = find(made(times(128 / 127)), NO_FILES)
    assert found.hint.startswith("Multiply running_var by 0.9921875 in the second file")


@given(
    st.integers(2, 10**7), st.sampled_from(["float32", "float16", "float64"]), st.integers(0, 99)
)
@settings(max_examples=150, deadline=None)
def test_the_range_of_n_holds_the_true_one(n, dtype, seed):
    found = find(made(times(n / (n - 1)), dtype, seed=seed), NO_FILES)
    if found is None:
        return
    assert found.numbers["cause"] in ("unbiased", "few-roundings")
    if found.numbers["cause"] == "unbiased":
        most = found.numbers["n_max"]
        assert found.numbers["n_min"] <= n
        assert most is None or n <= most


def test_a_small_n_may_be_a_factor_by_chance():
    found = find(made(times(1.25)), NO_FILES)
    assert found.what == "the variance is unbiased where the first file's is biased, n = 5"
    assert found.certainty is Certainty.LIKELY


def test_an_odd_n_may_be_two_ranks_of_which_one_has_half_the_values():
    found = find(made(times((16 / 15) / (32 / 31))), NO_FILES)
    assert (found.numbers["n"], found.certainty) == (31, Certainty.LIKELY)
    assert "16 values in it and 32 in the other fit, too" in found.detail


def test_two_ranks_with_counts_of_their_own():
    ratio = (18 / 17) / (50 / 49)
    found = find(made(times(ratio)), NO_FILES)
    assert found.numbers["cause"] == "one-ratio"
    assert found.numbers["ratio"] == pytest.approx(1.0376, abs=1e-4)
    assert found.what == "running_var is 1.0376 times the first file's in every channel"
    assert "each of two ranks" in found.detail
    assert found.certainty is Certainty.LIKELY


@pytest.mark.parametrize("ratio", [7.5, 1 / 7.5])
def test_what_is_above_2_is_no_bessel_factor(ratio):
    found = find(made(times(ratio)), NO_FILES)
    assert found.numbers["cause"] == "factor"
    assert found.numbers["n"] is None
    assert "the mean is the same" in found.detail.lower()


def test_an_input_is_named_where_the_mean_is_0():
    layer = {**random_layer(), "running_mean": np.zeros(8)}
    found = find(pair(layer, {**layer, "running_var": layer["running_var"] * 9}), NO_FILES)
    assert "multiplied by 3 gives this" in found.detail


def test_keras_2_has_its_own_factor():
    found = find(made(times(32 / 30.999)), NO_FILES)
    assert found.numbers["cause"] == "unbiased-keras2"
    assert found.numbers["n"] == 32


@pytest.mark.parametrize("batches", [60, 400])
@pytest.mark.parametrize("keras", [False, True])
def test_statistics_that_were_really_updated(batches, keras):
    layers = updated(batches, 128, keras=keras)
    found = find(pair(*layers), NO_FILES)
    assert found.what == "the variance is unbiased where the first file's is biased, n = 128"
    if batches == 60:  # the initial 1 is not forgotten yet
        assert found.certainty is Certainty.LIKELY
        assert found.numbers["share"] == pytest.approx(0.9**60, rel=0.01)
    else:
        assert found.certainty is Certainty.CERTAIN


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "momentum"), [(1568, 0.1), (64, 0.01), (20_000, 0.1)])
def test_no_true_n_is_left_out_after_many_updates(n, momentum, seed):
    layers = updated(300 if momentum == 0.1 else 2000, n, momentum=momentum, channels=4, seed=seed)
    found = find(pair(*layers), NO_FILES)
    assert found.numbers["cause"] == "unbiased"
    assert found.numbers["n_min"] <= n
    assert found.numbers["n_max"] is None or n <= found.numbers["n_max"]


def test_a_few_updates_keep_most_of_the_initial_1():
    found = find(pair(*updated(5, 32)), NO_FILES)
    assert found.numbers["n"] == 32
    assert found.numbers["share"] == pytest.approx(0.9**5, rel=1e-3)
    assert "of which 0.59 is left" in found.detail


def test_batches_of_different_sizes_leave_no_single_n():
    found = find(pair(*updated(400, 128, last=40)), NO_FILES)
    assert found.certainty is Certainty.LIKELY
    assert found.what.endswith("not one n")
    assert 40 < found.numbers["n_min"] < found.numbers["n_max"] < 128


def test_a_mean_that_moved_is_no_convention():
    first, second = updated(400, 128, last=40)
    second["running_mean"] = second["running_mean"] + np.float32(1e-3)
    assert find(pair(first, second), NO_FILES) is None
    first, second = updated(400, 128)
    second["running_mean"] = second["running_mean"] + np.float32(1e-3)
    assert find(pair(first, second), NO_FILES) is None


def test_ratios_that_differ_much_are_no_convention():
    layer = random_layer()
    other = {**layer, "running_var": layer["running_var"] * np.linspace(1.01, 1.05, 8)}
    assert find(pair(side(layer), side(other)), NO_FILES) is None
    layer["running_mean"] = np.zeros(8)
    other = {**layer, "running_var": layer["running_var"] * np.linspace(1.01, 1.012, 8)}
    assert find(pair(side(layer), side(other)), NO_FILES) is None


def test_counts_and_their_inverse():
    assert counts(1.25, 1.5) == pytest.approx((3, 5))
    assert one_count(128 / 127, 1e-7) == 128
    assert one_count(127 / 128, 1e-7) == 128
    assert one_count(1.0376, 1e-7) is None
    assert one_count(3.0, 1e-7) is None
    assert one_count(1 + 1e-6, 1e-7) is None
