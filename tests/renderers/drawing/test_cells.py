"""How a value looks to a person."""

from __future__ import annotations

import math

import pytest

from bncli.renderers.drawing.cells import format_cell


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (None, ".6g", "-"),
        (True, ".6g", "yes"),
        (False, ".6g", "no"),
        (1 / 3, ".6g", "0.333333"),
        (1 / 3, ".4g", "0.3333"),
        (12345678, ".2g", "12345678"),  # an int is a count, and has all its digits
        (-0.0, ".6g", "-0"),
        (math.nan, ".6g", "nan"),
        (math.inf, ".1%", "inf"),
        (-math.inf, ".1%", "-inf"),
        (0.5, ".1%", "50.0%"),
        (9.35, ".1%", "935.0%"),
        (21.53, ".1%", "21.5 times"),
        (-1000.0, ".1%", "-1e+03 times"),
        (1000.0, ".6g", "1000"),
        ("a\nb", ".6g", r"a\x0ab"),
        ([], ".6g", "()"),
        ((1, 0.25, None, "x"), ".1g", "(1, 0.2, -, x)"),
        ([[1, 2], [3]], ".6g", "((1, 2), (3))"),
    ],
)
def test_a_value_as_text(value, spec, text):
    assert format_cell(value, spec) == text


def test_six_digits_are_the_usual_number():
    assert format_cell(math.pi) == "3.14159"
