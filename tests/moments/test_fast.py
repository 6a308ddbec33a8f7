"""The sums of long runs by NumKong: as exact as all others, on any processor."""

import numpy as np
import pytest

from bncli.moments import fast

numkong = pytest.importorskip("numkong")


@pytest.mark.parametrize("shape", [(3, 2, 5000), (1, 1, 70000), (40, 3, 49), (2, 5, 4096)], ids=str)
def test_sums_and_extremes(shape):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    total, square, low, high = fast.sums(fast.kernels(), x, extremes=True)
    wide = x.astype(np.longdouble)
    assert np.allclose(total, wide.sum(axis=(0, 2)).astype(float), rtol=0, atol=1e-12 * x.size)
    assert np.allclose(square, np.square(wide).sum(axis=(0, 2)).astype(float), rtol=1e-13)
    assert (low == x.min(axis=(0, 2))).all()
    assert (high == x.max(axis=(0, 2))).all()
