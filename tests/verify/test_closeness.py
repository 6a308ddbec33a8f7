"""What is close: default tolerances and ULPs against PyTorch's and NumPy's, infinities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.testing._comparison import default_tolerances

from bncli.dtypes import DTYPES
from bncli.verify.closeness import (
    alike,
    default_tolerance,
    overflowed,
    spacing,
    without_infinities,
)

KNOWN = [name for name in DTYPES if hasattr(torch, name) and "complex" not in name]


@pytest.mark.parametrize("pair", list(itertools.product(KNOWN, repeat=2)), ids="-".join)
def test_the_default_tolerance_is_that_of_assert_close(pair):
    assert default_tolerance(*pair) == default_tolerances(*(getattr(torch, name) for name in pair))


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float64", "f8"), ("float32", "f4"), ("float16", "f2")]
)
def test_spacing_is_numpys(dtype, kind):
    rng = np.random.default_rng(0)
    largest = float(np.finfo(kind).max)
    values = np.exp(rng.uniform(np.log(np.finfo(kind).tiny), np.log(largest), 500)).astype(kind)
    values = np.concatenate([values, np.array([0, 1, 2, np.finfo(kind).smallest_subnormal], kind)])
    steps = np.spacing(np.abs(values)).astype(np.float64)
    np.testing.assert_array_equal(spacing(values.astype(np.float64), dtype), steps)


def test_spacing_of_what_has_none():
    assert np.isnan(spacing(np.array([np.inf, np.nan]), "float32")).all()
    assert np.isnan(spacing(np.array([1.0]), "int64")).all()
    assert spacing(np.array([1.0]), "bfloat16") == 2.0**-7


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_a_cast_would_make_infinite_is(dtype):
    largest = torch.finfo(getattr(torch, dtype)).max
    values = largest * np.array([1.0, 1 + 1e-5, 1.001, 1.01, -1.0, -1.01, np.nan, -np.inf])
    cast = torch.from_numpy(values).to(getattr(torch, dtype)).double().numpy()
    found = overflowed(values, dtype)
    np.testing.assert_array_equal(np.isinf(found), np.isinf(cast))
    np.testing.assert_array_equal(found[np.isinf(cast)], cast[np.isinf(cast)])
    kept = ~np.isinf(cast)
    np.testing.assert_array_equal(found[kept], values[kept])


def test_what_is_not_finite_has_no_rounding():
    found = without_infinities(np.array([1.0, -2.0, np.inf, -np.inf, np.nan]))
    np.testing.assert_array_equal(found, [1.0, -2.0, 0.0, 0.0, 0.0])


def test_an_infinity_beside_a_nan_is_alike_in_a_lost_channel_alone():
    ours = np.array([np.inf, np.inf, 1.0, np.inf])
    theirs = np.array([np.nan, np.inf, np.nan, np.nan])
    lost = np.array([True, True, True, False])
    actual, expected = alike(ours, theirs, lost)
    np.testing.assert_array_equal(actual, [np.nan, np.inf, 1.0, np.inf])
    np.testing.assert_array_equal(expected, [np.nan, np.inf, np.nan, np.nan])
    assert alike(ours, theirs, lost & False)[0] is ours
