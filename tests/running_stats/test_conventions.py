"""What a convention does with a momentum and a variance, and the conversions between any two."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.running_stats.conventions import converted_momentum, variance_ratio
from bncli.running_stats.frameworks import CONVENTIONS, convention

every_convention = pytest.mark.parametrize("row", CONVENTIONS, ids=lambda row: row.name)
conventions = st.sampled_from(CONVENTIONS)


@every_convention
@pytest.mark.parametrize("count", [2, 3, 8, 1000])
def test_the_variance_that_enters(row, count):
    expected = {
        "biased": Fraction(1),
        "unbiased": Fraction(count, count - 1),
        "keras2": count / (count - 1 - Fraction("1e-3")),
    }[row.variance]
    assert row.variance_factor(count) == pytest.approx(float(expected), rel=1e-15)


def test_keras_2_as_it_was_reported():
    """A batch of 5 with variance 1.25 gave 1.6672 in its running variance's place: 4 values."""
    assert 1.25 * convention("keras2").variance_factor(4, 1e-3) == pytest.approx(1.6672, abs=1e-4)


@pytest.mark.parametrize(("name", "factor"), [("keras3", 1.0), ("tf-fused", 1.0), ("caffe", 1.0)])
def test_one_value_where_there_is_a_number(name, factor):
    assert convention(name).variance_factor(1) == factor


@pytest.mark.parametrize("name", ["pytorch", "tinygrad", "darknet", "paddle-cudnn"])
def test_one_value_where_there_is_none(name):
    assert str(convention(name).variance_factor(1)) == "nan"


@given(conventions, conventions, st.decimals("0", "1", places=6).map(float))
def test_a_momentum_goes_there_and_back(a, b, momentum):
    there = converted_momentum(momentum, a, b)
    assert converted_momentum(there, b, a) == pytest.approx(momentum, abs=1e-15)
    assert a.new_weight(momentum) == pytest.approx(b.new_weight(there), abs=1e-15)
    assert a.momentum_of(a.new_weight(momentum)) == pytest.approx(momentum, abs=1e-15)


def test_a_momentum_is_converted_as_a_person_would():
    keras, torch = convention("keras3"), convention("pytorch")
    assert converted_momentum(0.99, keras, torch) == 0.01
    assert converted_momentum(0.999, keras, torch) == 0.001
    assert converted_momentum(0.1, torch, keras) == 0.9
    assert converted_momentum(0.1, torch, convention("burn")) == 0.1


@given(conventions, conventions, conventions, st.integers(2, 10**6))
def test_variance_ratios_multiply(a, b, c, count):
    through = variance_ratio(count, a, b) * variance_ratio(count, b, c)
    assert variance_ratio(count, a, c) == pytest.approx(through, rel=1e-14)
