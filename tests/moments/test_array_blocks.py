"""The sums of one batch of arrays, in every layout and dtype, block by block."""

import numpy as np
import pytest

from bncli.dtypes import encode
from bncli.errors import TensorError
from bncli.moments import array_blocks
from bncli.moments.batches import BatchSums

from .exact_batches import check, in_layouts, same_bits

SHAPES = [(6, 3), (1, 2), (4, 2, 9), (3, 2, 5, 7), (2, 3, 3, 4, 5), (1, 2, 8), (7, 1, 6), (2, 3, 1)]
LAYOUTS = list(in_layouts(np.zeros((2, 2, 2))))


@pytest.fixture
def small_blocks(monkeypatch):
    """A function that makes blocks so small that small arrays have many."""

    def small(values):
        monkeypatch.setattr(array_blocks, "BLOCK_VALUES", values)
        monkeypatch.setattr(array_blocks, "_spare", [])

    return small


def summed(batches, **how):
    """The sums of `batches`."""
    sums = BatchSums(batches[0].shape[1])
    for x in batches:
        sums.add(x, **how)
    return sums.result()


def normal(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("most", [7, 1 << 10])
def test_dtypes_and_shapes(shape, dtype, most, small_blocks):
    small_blocks(most)
    batches = [normal(shape, i, dtype) for i in range(3)]
    check(summed(batches), batches)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("most", [16, 50, 1 << 10])
@pytest.mark.parametrize("shape", [(6, 4, 4, 5), (5, 6), (2, 4, 300)], ids=str)
def test_layouts(layout, dtype, most, shape, small_blocks):
    small_blocks(most)
    batches = [in_layouts(normal(shape, i, dtype))[layout] for i in range(2)]
    before = [x.copy() for x in batches]
    check(summed(batches), batches)
    for x, copy in zip(batches, before, strict=True):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize("layout", LAYOUTS[:3])
@pytest.mark.parametrize("shape", [(3, 4, 11, 12), (9, 4, 30), (40, 3)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(layout, shape, small_blocks):
    small_blocks(64)
    x = in_layouts(normal(shape, dtype=np.float32))[layout]
    one = summed([x], threads=1)
    assert all(same_bits(one, summed([x], threads=threads)) for threads in (2, 3, 8))


def test_an_error_in_a_block_ends_the_pass(small_blocks, monkeypatch):
    small_blocks(64)
    monkeypatch.setattr(array_blocks, "_row_sums", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        summed([normal((3, 4, 50))], threads=3)


@pytest.mark.parametrize("many", [1, 1 << 20], ids=["by_channel", "at_once"])
@pytest.mark.parametrize("layout", LAYOUTS[:4])
def test_equal_values_are_counted(layout, many, small_blocks, monkeypatch):
    small_blocks(200)
    monkeypatch.setattr(array_blocks, "_MANY_FLAGS", many)
    x = np.random.default_rng(3).integers(-2, 3, (6, 5, 4, 20)).astype(np.float32)
    x[:, 0] = 0
    x[:, 1] = 3
    x[:, 2] = np.clip(x[:, 2], 0, 1)
    x[:, 3, 0, 0] = -0.0
    x[2, 4] = 0
    check(summed([in_layouts(x)[layout]]), [x])


def test_long_rows_and_many_channels():
    for shape in ((2, 3, 5000), (1, 700, 3), (300, 2, 2), (2, 2, 4093)):
        batches = [normal(shape, i, np.float32) for i in range(2)]
        check(summed(batches), batches)


def test_bits_of_bfloat16():
    bits = encode(normal((4, 3, 5), dtype=np.float32), "bfloat16")
    check(summed([bits], dtype="bfloat16"), [(bits.astype(np.uint32) << 16).view(np.float32)])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "uint16", "bool"])
def test_whole_numbers(dtype):
    x = np.random.default_rng(4).integers(0, 2 if dtype == "bool" else 99, (4, 3, 6)).astype(dtype)
    check(summed([x]), [x])


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(4), r"shape \(4,\) has not"),
        (np.zeros((0, 3)), r"shape \(0, 3\) has not"),
        (np.zeros((2, 3, 0)), r"shape \(2, 3, 0\) has not"),
        (np.zeros((2, 3), complex), "complex128 have no BatchNorm statistics"),
        (np.zeros((2, 3), "U4"), "<U4 have no BatchNorm statistics"),
    ],
)
def test_what_has_no_statistics_is_refused(x, words):
    with pytest.raises(TensorError, match=words):
        BatchSums(3).add(x)


def test_no_whole_copy_is_made():
    """Of a large batch, in memory that does not grow with it."""
    import tracemalloc

    x = np.ones((4, 8, 500, 500), np.float32)
    summed([x], threads=2)
    tracemalloc.start()
    try:
        summed([x], threads=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 8
