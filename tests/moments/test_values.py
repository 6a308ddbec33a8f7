"""Stored bits become float64: against what NumPy and PyTorch make of every half there is."""

import numpy as np
import pytest
import torch

from bncli.moments.values import Widener

from .summed import both

EVERY = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)


def same(one, other):
    """Equal to the sign of a zero; a NaN has none that counts."""
    return np.array_equal(one, other, equal_nan=True) and np.array_equal(
        np.signbit(one) & ~np.isnan(one), np.signbit(other) & ~np.isnan(other)
    )


@both
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half(dtype, order):
    expected = torch.from_numpy(EVERY.copy()).view(getattr(torch, dtype)).double().numpy()
    kind = "f2" if dtype == "float16" else "u2"
    stored = EVERY.view(kind if kind == "u2" else np.float16).astype(f"{order}{kind}")
    widen = Widener(dtype, None, EVERY.size)
    for rows in (slice(0, 256), slice(0, 0x78), slice(0x80, 0xF8)):  # the last two are finite
        with np.errstate(invalid="ignore"):  # as the engine has it: a signalling NaN is quieted
            wide, narrow = widen(stored[rows])
            assert same(narrow.astype(float), expected[rows])
        assert (wide.dtype, narrow.dtype) == (np.float64, np.float32)
        assert same(wide, expected[rows])
        assert wide.flags.c_contiguous
        assert np.shares_memory(wide, widen.buffer)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_float64_already_is_not_copied(dtype):
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(dtype)
    widen = Widener(dtype, dtype, 20)
    wide, narrow = widen(x)
    assert (wide is x) == (dtype == "float64")
    assert narrow is x
    assert np.array_equal(wide, x)
    for other in (x[:, ::2], x.astype(x.dtype.newbyteorder(">"))):
        wide, narrow = widen(other)
        assert wide is narrow
        assert wide.dtype == np.float64
        assert np.array_equal(wide, other)


def test_bytes_that_are_not_aligned_are_copied():
    raw = np.zeros(81, np.uint8)
    x = raw[1:].view(np.float64)
    wide, _ = Widener("float64", None, 10)(x)
    assert wide is not x
    assert wide.flags.aligned


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_every_float8(dtype):
    stored = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(stored.copy()).view(getattr(torch, dtype)).double().numpy()
    wide, narrow = Widener(dtype, None, 256)(stored)
    assert wide is narrow
    assert same(wide, expected)


@pytest.mark.parametrize("cast", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("stored", ["float64", "float32", "int64", "bfloat16"])
def test_a_cast_rounds_as_pytorch_does(stored, cast):
    values = torch.tensor([0.1, -1 / 3, 65520.0, 1e-7, 300.7, 1e30]).to(getattr(torch, stored))
    bits = values.view(torch.uint16) if stored == "bfloat16" else values
    expected = values.to(getattr(torch, cast)).double().numpy()
    wide, _ = Widener(stored, cast, 6)(bits.numpy())
    assert same(wide, expected)
