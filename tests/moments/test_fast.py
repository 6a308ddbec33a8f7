"""The sums of long runs by NumKong: as exact as all others, on any processor."""

import numpy as np
import pytest

from bncli.moments import channel_moments, channel_stats, fast, merge

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


NUMPY, NUMKONG = f"numpy {np.__version__}", f"numkong {numkong.__version__}"
IMAGES = np.random.default_rng(1).standard_normal((16, 4, 64, 64), np.float32)
FAR = np.concatenate([IMAGES[:, :3], IMAGES[:, 3:] + np.float32(100)], axis=1)


@pytest.mark.parametrize(
    ("x", "asked", "engines"),
    [
        pytest.param(IMAGES, {}, (NUMKONG,), id="images"),
        pytest.param(IMAGES.astype(np.float16), {}, (NUMKONG,), id="halves"),
        pytest.param(IMAGES.astype(np.float64), {}, (NUMPY,), id="float64"),
        pytest.param(IMAGES.reshape(-1, 4), {}, (NUMPY,), id="rows"),
        pytest.param(
            np.moveaxis(np.moveaxis(IMAGES, 1, -1).copy(), -1, 1), {}, (NUMPY,), id="channels_last"
        ),
        pytest.param(IMAGES[:1, :, :8, :8], {}, (NUMPY,), id="few"),
        pytest.param(IMAGES, {"dtype": "float16"}, (NUMPY,), id="cast"),
        pytest.param(IMAGES, {"sample_axis": 0}, (NUMKONG,), id="samples"),
        pytest.param(
            IMAGES, {"channel_axis": 0, "sample_axis": 1}, (NUMPY,), id="samples_behind_channels"
        ),
        pytest.param(IMAGES, {"kurtosis": True}, (NUMKONG, NUMPY), id="kurtosis"),
        pytest.param(FAR, {}, (NUMKONG, NUMPY), id="far"),
    ],
)
def test_the_statistics_name_what_summed(x, asked, engines):
    assert channel_stats(x, **asked).engines == engines
    assert channel_stats(x, **asked, threads=1).engines == engines
    if not asked:
        assert channel_moments(x).engines == engines


def test_merged_statistics_name_what_summed_any_of_them():
    parts = [channel_stats(IMAGES), channel_stats(IMAGES.astype(np.float64))]
    assert merge(parts).engines == (NUMKONG, NUMPY)
    assert merge(parts[:1]).engines == (NUMKONG,)
