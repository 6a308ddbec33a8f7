"""Runs tests with NumPy alone and with NumKong; a stand-in as inexact as NumKong can be."""

import numpy as np
import pytest

from bncli.moments import fast, small
from bncli.moments.source import Source

both = pytest.mark.usefixtures("summed_by")
"""Runs a test with NumPy alone and with NumKong."""


def both_by_dtype(*dtypes):
    """`both` for each of `dtypes`, and for float64, which NumPy sums in any case, NumPy alone."""
    cases = [(by, dtype) for dtype in dtypes for by in ("NumPy", "NumKong")]
    by_dtype = pytest.mark.parametrize(
        ("summed_by", "dtype"), [*cases, ("NumPy", "float64")], indirect=["summed_by"]
    )
    return lambda test: both(by_dtype(test))


def in_runs(x):
    """x with the axes joined that one stride walks through; each run is along the last axis."""
    while x.ndim > 1 and x.strides[-2] == x.strides[-1] * x.shape[-1]:
        x = x.reshape(*x.shape[:-2], -1)
    return x


def run_lengths(x):
    """The number of values that are added up one to the other."""
    return in_runs(x).shape[-1]


def two_lanes(x):
    """`numkong.moments` as with NEON: two sums side by side, without compensation."""
    runs = in_runs(x).reshape(-1, run_lengths(x)).astype(np.float64)
    sums = []
    for values in (runs, np.square(runs)):
        lanes = [np.add.accumulate(values[:, lane::2], axis=1) for lane in (0, 1)]
        each = sum(lane[:, -1] for lane in lanes if lane.size)
        sums.append(float(np.add.accumulate(each)[-1]))
    return tuple(sums)


def extremes(x):
    """`numkong.minmax`, but for the places."""
    if np.isnan(x).all():
        return None
    return float(np.nanmin(x)), 0, float(np.nanmax(x)), 0


def astype(x, dtype, *, out):
    """`numkong.astype`."""
    out[...] = x.astype(dtype)


TWO_LANES = fast.Kernels(two_lanes, extremes, astype, "two lanes")


class Taken:
    """The lengths of the runs that NumKong's kernels have added up."""

    def __init__(self, kernels):
        self.lengths = []
        self._moments = kernels.moments
        self.kernels = kernels._replace(moments=self)

    def __call__(self, x):
        self.lengths.append(run_lengths(x))
        return self._moments(x)


def can_be(_dtype, _task, channel, sample=None):
    """`fast.pays` for all that the kernels can take, whether or not it is faster."""
    return sample is None or sample < channel


def take_all(monkeypatch, kernels):
    """Let the `kernels` sum all that they can, short as it may be; returns what they have taken."""
    taken = Taken(kernels)
    monkeypatch.setattr(fast, "kernels", lambda: taken.kernels)
    monkeypatch.setattr(fast, "pays", can_be)
    monkeypatch.setattr(Source, "_seems_far", lambda _: False)
    monkeypatch.setattr(small, "_SMALL_VALUES", 0)
    return taken
