"""Sums over a tile against integers, which float64 adds without rounding."""

import numpy as np
import pytest

from bncli.moments import kernels

SHAPES = [
    (1, 1, 1), (1, 1, 5000), (3, 1, 700), (7, 2, 23), (7, 2, 24), (7, 2, 25), (40, 3, 1),
    (3000, 3, 1), (511, 5, 2), (2, 600, 1), (5, 3, 127), (5, 3, 128), (2, 2, 4095), (2, 2, 4096),
    (2, 2, 4097), (3, 2, 9001), (1, 700, 30), (8192, 1, 1), (64, 128, 1), (128, 64, 1),
    (130, 64, 1), (31, 96, 3), (256, 4, 16), (1, 8, 1024), (4, 8, 511), (4, 8, 512), (70, 8, 513),
]  # fmt: skip
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def whole_numbers(shape):
    return np.random.default_rng(len(shape) + sum(shape)).integers(-99, 100, shape)


@every_shape
def test_sums_and_sums_of_squares(shape):
    x = whole_numbers(shape)
    total, square = kernels.power_sums(x.astype(float))
    assert total.shape == square.shape == (shape[1],)
    assert total.tolist() == x.sum(axis=(0, 2)).tolist()
    assert square.tolist() == (x**2).sum(axis=(0, 2)).tolist()


@every_shape
def test_sums_of_columns(shape):
    x = whole_numbers(shape)
    assert kernels.column_sums(x.astype(float)).tolist() == x.sum(axis=(0, 2)).tolist()


@every_shape
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes(shape, dtype):
    x = whole_numbers(shape).astype(dtype)
    for ufunc in (np.minimum, np.maximum):
        found = kernels.extreme(ufunc, x)
        assert found.dtype == dtype
        assert found.tolist() == ufunc.reduce(x, axis=(0, 2)).tolist()
    x[-1, -1, -1] = np.nan
    found = kernels.extreme(np.maximum, x)
    assert np.isnan(found).tolist() == [False] * (shape[1] - 1) + [True]


def test_what_the_exact_sums_keep_of_a_long_run():
    """Pieces keep terms that round alike from drifting: 0.1 squared is rounded the same each time.

    Summed one by one, the error of a million terms would be a thousand times as large.
    """
    x = np.full((1, 1, 1 << 20), 0.1)
    _, square = kernels.power_sums(x)
    assert abs(square[0] / ((1 << 20) * 0.1**2) - 1) < 1e-14


def test_a_guess_is_the_mean_of_a_few_values_each_way():
    x = whole_numbers((40, 3, 50)).astype(float) + 1e6
    few = x[:16, :, :16]
    assert kernels.guess_mean(x) == pytest.approx(few.mean(axis=(0, 2)), rel=1e-12)
    x[:, 1] = 0.1
    x[2, 2, 3] = np.inf
    guess = kernels.guess_mean(x)
    assert guess[1:].tolist() == [0.1, 0.0]


@pytest.mark.parametrize("shape", [(1, 32, 12544), (1, 1, 1 << 20), (64, 8, 300), (3, 5, 40_000)])
def test_products_let_other_threads_run(shape, monkeypatch):
    """NumPy keeps the interpreter's lock for a product of up to 500 pairs of vectors."""
    rows = []
    vecdot = np.vecdot

    def counted(x, y):
        rows.append(x.size // x.shape[-1])
        assert x.shape[-1] <= kernels.PIECE_VALUES
        return vecdot(x, y)

    monkeypatch.setattr(np, "vecdot", counted)
    kernels.power_sums(np.ones(shape))
    assert len(rows) == 1
    assert rows[0] > 500
