"""How the tensors of two layers compare, and how far they are apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncli.changes.pair import agree, as_dtype, coarser, same_vectors
from bncli.model.changes import Same
from tests.changes.pairs import pair, random_layer, side


def test_equal_bits_are_the_same():
    values = np.float32([1.5, np.nan, -0.0])
    assert same_vectors(values, values.copy(), "float32", "float32") is Same.SAME


def test_a_zero_of_the_other_sign_has_other_bits():
    assert same_vectors(np.float32([0.0]), np.float32([-0.0]), "float32", "float32") is Same.ROUNDED


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_trip_through_half_precision_is_a_rounding(half):
    values = random_layer(seed=3)["running_var"]
    back = torch.from_numpy(values).to(getattr(torch, half)).float().numpy()
    assert same_vectors(values, back, "float32", "float32") is Same.ROUNDED
    assert same_vectors(back, values, half, "float32") is Same.ROUNDED
    assert same_vectors(values, back, "float32", half) is Same.ROUNDED
    back[5] = np.nextafter(back[5], np.float32(9))
    assert same_vectors(values, back, "float32", "float32") is Same.MOVED


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_a_value_too_large_for_half_precision_is_not_rounded(stored):
    values = random_layer(seed=3)["running_var"]
    values[2] = 1e5
    half = torch.from_numpy(values).half()
    assert torch.isinf(half[2])
    back = half.to(getattr(torch, stored)).numpy()
    assert same_vectors(values, back, "float32", stored) is Same.MOVED
    assert same_vectors(back, back.astype(np.float32), stored, "float32") is not Same.MOVED


def test_initial_weights_that_moved_little_are_not_rounded():
    ones = np.ones(4, np.float32)
    assert same_vectors(ones, ones + np.float32(1e-4), "float32", "float32") is Same.MOVED


def test_another_number_of_channels_is_moved():
    assert same_vectors(np.zeros(3), np.zeros(4), "float64", "float64") is Same.MOVED


def test_the_coarser_dtype_has_fewer_digits():
    assert coarser("float32", "float16") == "float16"
    assert coarser("bfloat16", "float16") == "bfloat16"
    assert coarser("float64", "float32") == "float32"


@given(st.floats(-1e4, 1e4), st.sampled_from(["float32", "float16", "bfloat16"]))
def test_a_rounding_agrees_and_five_do_not(value, dtype):
    values = np.array([value])
    rounded = as_dtype(values, dtype)
    assert agree(rounded, values, dtype, 0.5).all()
    up = rounded
    for _ in range(3):
        up = as_dtype(np.nextafter(torch_up(up, dtype), np.inf), dtype)
    if abs(value) > 1:
        assert not agree(up, values, dtype, 1).any()


def torch_up(values, dtype):
    """The next larger values that a dtype holds."""
    tensor = torch.from_numpy(values).to(getattr(torch, dtype))
    return torch.nextafter(tensor, torch.full_like(tensor, torch.inf)).double().numpy()


def test_measures_are_those_of_the_formulas():
    a = random_layer(seed=1)
    b = random_layer(seed=2)
    found = pair(side(a, 100), side(b, 140)).measures
    old, new = (np.sqrt(np.float64(each["running_var"]) + 1e-5) for each in (a, b))
    shift = np.float64(b["running_mean"]) - a["running_mean"]
    x = np.float64(a["running_mean"]) + old * np.array([[-1.0], [1.0]])  # mean and variance of a
    was, now = (x - a["running_mean"]) / old, (x - b["running_mean"]) / new
    off = np.sqrt(np.mean((np.float64(b["weight"]) * (was - now)) ** 2, axis=0))
    assert found.batches == 40
    assert found.z_max == pytest.approx(np.abs(shift / old).max())
    assert found.z_min == pytest.approx(np.abs(shift / old).min())
    assert found.var_ratio_max == pytest.approx(((new / old) ** 2).max())
    assert found.var_ratio_min == pytest.approx(((new / old) ** 2).min())
    assert found.effect == pytest.approx(off.max())
    assert found.worst == off.argmax()
    size = np.linalg.norm(np.r_[a["weight"], a["bias"]].astype(float))
    change = np.r_[b["weight"] - np.float64(a["weight"]), b["bias"] - np.float64(a["bias"])]
    assert found.weight_change == pytest.approx(np.linalg.norm(change) / size)


def test_measures_of_what_is_missing_are_unknown():
    found = pair(side({"weight": np.ones(3)}, None), side(random_layer(3))).measures
    assert (found.batches, found.z_max, found.effect) == (None, None, None)


def test_a_cast_of_float64_that_rounds_once_is_a_rounding():
    wide = np.array([1 + 2.0**-11 + 2.0**-30, 2.5, -3.0])  # by way of float32 it is a tie
    narrow = wide.astype(np.float16)
    assert narrow[0] != wide.astype(np.float32).astype(np.float16)[0]
    assert same_vectors(wide, narrow, "float64", "float16") is Same.ROUNDED
    narrow[1] = 2
    assert same_vectors(wide, narrow, "float64", "float16") is Same.MOVED
