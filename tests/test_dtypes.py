"""Every bit pattern of the small floats, and every kind of rounding, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncli.dtypes import COMPUTE_DTYPES, DTYPES, ComputeDtype, decode, encode

FLOAT8 = [name for name in DTYPES if name.startswith("float8")]


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal bit by bit, but for the payload and sign of a NaN."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual)[numbers], np.signbit(expected)[numbers])


# ---------------------------------------------------------------------------- decode


@pytest.mark.parametrize("name", FLOAT8)
def test_float8_by_all_its_bit_patterns(name):
    bits = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(bits).view(getattr(torch, name)).float().numpy()
    same(decode(bits, name), expected)
    same(decode(bits.reshape(4, 8, 8), name), expected.reshape(4, 8, 8))


def test_bfloat16_by_all_its_bit_patterns():
    bits = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    same(decode(bits, "bfloat16"), expected)
    same(decode(bits.astype(">u2").reshape(256, 256), "bfloat16"), expected.reshape(256, 256))


@pytest.mark.parametrize("name", ["bfloat16", *FLOAT8])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3)])
def test_decode_keeps_the_shape(name, shape):
    decoded = decode(np.zeros(shape, DTYPES[name].stored), name)
    assert isinstance(decoded, np.ndarray)
    assert decoded.shape == shape
    assert decoded.dtype == np.float32


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "int8", "uint64", "bool"])
def test_other_dtypes_are_what_they_are(name):
    stored = np.arange(6).astype(DTYPES[name].stored)
    assert decode(stored, name) is stored


# ---------------------------------------------------------------------------- encode

EDGES = np.array(
    [
        0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1 / 3, 5e-324, 1e-45, -1e-45, 1e308, -1e308,
        65504.0, 65519.0, 65519.99, 65520.0, 65536.0, 3.3895313892515355e38, 3.39e38, 3.4e38,
        3.4028234663852886e38, 3.402823669209385e38, 2.0**-24, 2.0**-25, 2.0**-25 * 1.0001,
        2.0**-133, 2.0**-134, 2.0**-134 * 1.0001, 2.0**-149, 2.0**-150,
    ]
)  # fmt: skip


def ties(dtype: str) -> np.ndarray:
    """Numbers halfway between neighbours of `dtype`, and just beside: even and odd, every scale."""
    digits = DTYPES[dtype].digits
    significands = np.arange(1 << (digits - 1), 1 << digits, max(1, (1 << digits) >> 9)) + 0.5
    nudges = np.array([-(2.0**-12), 0.0, 2.0**-12])
    numbers = (significands[:, None] + nudges).reshape(-1)
    scales = 2.0 ** np.arange(-30 - digits, 16 - digits)
    return (numbers[:, None] * scales).reshape(-1)


def torch_cast(values: np.ndarray, dtype: str) -> np.ndarray:
    return torch.from_numpy(values).to(getattr(torch, dtype)).double().numpy()


@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_encode_rounds_as_torch_does(dtype, source):
    with np.errstate(over="ignore"):
        edges = EDGES.astype(source)
    numbers = np.concatenate([edges, ties(dtype).astype(source), -ties(dtype).astype(source)])
    stored = encode(numbers, dtype)
    assert stored.dtype == np.dtype(DTYPES[dtype].stored)
    same(decode(stored, dtype).astype(np.float64), torch_cast(numbers, dtype))


def test_encode_of_every_bfloat16_and_float16_gives_it_back():
    for dtype in ("bfloat16", "float16"):
        bits = np.arange(1 << 16, dtype=np.uint16)
        stored = bits if dtype == "bfloat16" else bits.view(np.float16)
        wide = decode(stored, dtype).astype(np.float32)
        again = encode(wide, dtype).view(np.uint16)
        np.testing.assert_array_equal(again[~np.isnan(wide)], bits[~np.isnan(wide)])
        assert np.isnan(decode(encode(wide, dtype), dtype)[np.isnan(wide)]).all()


@given(st.integers(0, 2**32 - 1))
def test_encode_of_any_float32_as_bfloat16(bits):
    number = np.array([bits], np.uint32).view(np.float32)
    same(
        decode(encode(number, "bfloat16"), "bfloat16").astype(np.float64),
        torch_cast(number, "bfloat16"),
    )


@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
@pytest.mark.parametrize("source", ["int64", "uint8", "bool", "float16"])
def test_encode_of_other_kinds(dtype, source):
    numbers = np.array([0, 1, 3, 255 if source != "int64" else 16777217]).astype(source)
    expected = torch_cast(numbers, dtype)
    np.testing.assert_array_equal(decode(encode(numbers, dtype), dtype), expected)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)])
def test_encode_keeps_the_shape(shape):
    for dtype in COMPUTE_DTYPES:
        stored = encode(np.ones(shape), dtype)
        assert isinstance(stored, np.ndarray)
        assert stored.shape == shape


# ---------------------------------------------------------------------------- the table


@pytest.mark.parametrize("name", COMPUTE_DTYPES)
def test_limits_of_a_float_are_those_of_torch(name):
    ours, theirs = DTYPES[name], torch.finfo(getattr(torch, name))
    assert ours.largest == theirs.max
    assert ours.unit_roundoff == theirs.eps / 2
    assert ours.tiniest == theirs.smallest_normal * theirs.eps


@pytest.mark.parametrize("name", FLOAT8)
def test_limits_of_a_float8_are_those_of_its_values(name):
    table = decode(np.arange(256, dtype=np.uint8), name).astype(np.float64)
    finite = np.unique(np.abs(table[np.isfinite(table)]))
    assert DTYPES[name].largest == finite[-1]
    assert DTYPES[name].tiniest == finite[finite > 0][0]
    assert DTYPES[name].unit_roundoff == (finite[finite > 1][0] - 1) / 2


@pytest.mark.parametrize("name", list(DTYPES))
def test_the_stored_dtype_has_the_size_of_the_dtype(name):
    assert DTYPES[name].name == name
    assert np.dtype(DTYPES[name].stored).itemsize == DTYPES[name].itemsize
    assert getattr(torch, name).itemsize == DTYPES[name].itemsize


def test_compute_dtypes_are_the_floats_that_batchnorm_takes():
    assert COMPUTE_DTYPES == ("float16", "bfloat16", "float32", "float64")
    assert [member.value for member in ComputeDtype] == list(COMPUTE_DTYPES)


def test_float64_becomes_half_by_way_of_float32():
    """As `tensor.half()` does: two roundings, where one would give another value."""
    values = np.array([1 + 2**-11 + 2**-40, 1 + 2**-11, 1 + 2**-10 + 2**-11 - 2**-40])
    expected = torch.from_numpy(values).half().numpy()
    assert (encode(values, "float16") == expected).all()
    assert (values.astype(np.float16) != expected).any()
