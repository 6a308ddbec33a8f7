"""Numbers put into formulas: shortened in the middle, and never wrong."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.verify.trace import ChannelView, Writer
from bncli.verify.trace.text import squared

TUTORIAL = [1.0, 2.0, 3.0, 4.0, 9.0, 10.0, 11.0, 12.0]


def writer_of(values, mean=None, var=None) -> Writer:
    x = np.array(values, np.float64).reshape(-1, 1)
    view = ChannelView(x, 1, 0, lambda part: part)
    return Writer.of(view, x.mean() if mean is None else mean, x.var() if var is None else var)


def test_the_published_channel():
    writer = writer_of(TUTORIAL)
    assert writer.listed() == "1, 2, 3, 4, 9, 10, 11, 12"
    assert writer.summed() == "1 + 2 + 3 + ... + 12"
    assert writer.summed_squares(lambda x: x - 6.5) == "(-5.5)^2 + (-4.5)^2 + ... + 5.5^2"
    assert writer.equation(f"({writer.summed()}) / 8", 6.5) == "(1 + 2 + 3 + ... + 12) / 8 = 6.5"
    assert writer.summed_products([2.0] * 8) == "2 * 1 + 2 * 2 + ... + 2 * 12"


@pytest.mark.parametrize(
    ("values", "listed", "summed"),
    [
        ([3.0], "3", "3"),
        ([1.0, -2.0], "1, -2", "1 - 2"),
        ([-1.0, -2.0, 0.5, -0.25, 4.0], "-1, -2, 0.5, -0.25, 4", "-1 - 2 + 0.5 - 0.25 + 4"),
        ([*range(6)], "0, 1, 2, 3, 4, 5", "0 + 1 + 2 + ... + 5"),
        ([*range(12)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11", "0 + 1 + 2 + ... + 11"),
        ([*range(13)], "0, 1, 2, ..., 12", "0 + 1 + 2 + ... + 12"),
        ([5.0, -6.0, *range(90), -7.0], "5, -6, 0, ..., -7", "5 - 6 + 0 + ... - 7"),
        ([math.nan, math.inf, -math.inf], "nan, inf, -inf", "nan + inf - inf"),
    ],
)
def test_few_values_are_whole_and_many_are_shortened(values, listed, summed):
    writer = writer_of(values, 0.0, 1.0)
    assert writer.listed() == listed
    assert writer.summed() == summed


def test_as_many_digits_as_tell_the_values_from_their_mean():
    assert writer_of([1000001.0, 1000002.0]).summed() == "1000001 + 1000002"
    assert writer_of([2**40 + 0.25, 2**40 - 0.25]).listed() == "1099511627776.25, 1099511627775.75"
    assert writer_of([1 / 3, 2 / 3]).summed() == "0.33333 + 0.66667"
    assert writer_of([7.0, 7.0], 7.0, 0.0).digits == 6
    assert writer_of([1e300, 1e-300], 1e300, 1e-300).digits == 17


def evaluated(text: str) -> float:
    return eval(text.replace("^", "**"), {"sqrt": math.sqrt})


numbers = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.4g}"))


@given(st.lists(numbers, min_size=1, max_size=5))
def test_a_whole_sum_is_what_it_says(values):
    writer = writer_of(values, 0.0, 1.0)
    scale = sum(map(abs, values))
    assert evaluated(writer.summed()) == pytest.approx(sum(values), abs=1e-9 * scale)
    squares = evaluated(writer.summed_squares(lambda x: x))
    assert squares == pytest.approx(sum(value**2 for value in values), rel=1e-9)
    products = evaluated(writer.summed_products(values[::-1]))
    pairs = [a * b for a, b in zip(values, values[::-1], strict=True)]
    assert products == pytest.approx(sum(pairs), abs=1e-9 * sum(map(abs, pairs)))


@given(st.lists(numbers, min_size=6, max_size=40))
def test_a_shortened_sum_has_the_right_ends(values):
    writer = writer_of(values, 0.0, 1.0)
    before, after = writer.summed().split(" + ... ")
    assert evaluated(after) == values[-1]
    terms = [float(term.replace(" ", "")) for term in re.findall(r"(?:^|[-+] )-?[^ ]+", before)]
    assert terms == values[:3]


def test_a_negative_base_is_in_parentheses():
    assert (squared("-1.5"), squared("1.5"), squared("nan")) == ("(-1.5)^2", "1.5^2", "nan^2")
