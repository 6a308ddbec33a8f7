"""Candidates for what one vector is of others, by arithmetic alone."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.changes.many import sums
from bncli.changes.many.common import Values
from bncli.changes.many.sums import (
    Sources,
    mean_of,
    nearest,
    one_of,
    pooled,
    subset_of,
    weighted_sum,
)
from bncli.dtypes import encode
from bncli.model.many import Made
from bncli.report import Certainty


def sources(x, t, leaf="weight", dtype="float32"):
    """Vectors of one layer, rounded to a dtype."""
    each = np.vstack([x, t])
    if dtype in ("float16", "float32"):
        each = encode(each, dtype).astype(np.float64)
    count = each.shape[1]
    parts = ((("bn", leaf, slice(0, count))),)
    if leaf == "statistics":
        half = count // 2
        parts = (
            ("bn", "running_mean", slice(0, half)),
            ("bn", "running_var", slice(half, count)),
        )
    return Sources(Values(each, parts, ((dtype,) * len(each),) * len(parts), (count,)))


def normal(files=4, values=64, seed=0):
    return np.random.default_rng(seed).normal(1, 0.3, (files, values))


def test_a_mean_of_files_that_are_near_each_other_is_only_likely():
    """Files that are some roundings of float16 apart cannot be told from each other for certain."""
    base = normal(1, 256)
    for spread, certainty in ((1e-1, Certainty.CERTAIN), (3e-3, Certainty.LIKELY)):
        x = base + spread * np.random.default_rng(1).normal(size=(4, 256))
        fit = sources(x, x.mean(0), dtype="float16")
        fit = fit.sum_of(Made.MEAN, np.full(4, 0.25))
        assert fit.certainty is certainty
    x = base + 1e-4 * np.random.default_rng(1).normal(size=(4, 256))
    assert sources(x, x.mean(0), dtype="float16").sum_of(Made.MEAN, np.full(4, 0.25)) is None


@pytest.mark.parametrize("off", [1e-5, 1e-2])
def test_one_value_beyond_rounding_refutes_a_sum(off):
    x = normal()
    t = x.mean(0)
    assert mean_of(sources(x, t)).made is Made.MEAN
    t[17] += off
    assert mean_of(sources(x, t)) is None
    assert weighted_sum(sources(x, t)) is None
    assert nearest(sources(x, t)).off.nonzero()[0].tolist() == [17]


def test_weights_that_are_not_unique_are_not_taken_for_known():
    """Three files on one line: the middle one is the mean of the others."""
    one, two = normal(2)
    x = np.vstack([one, (one + two) / 2, two])
    fit = weighted_sum(sources(x, 0.3 * one + 0.7 * two))
    assert fit.made is Made.WEIGHTED
    assert not fit.unique
    assert weighted_sum(sources(x[[0, 2]], 0.3 * one + 0.7 * two)).unique


def test_too_few_values_fit_no_weights():
    x = normal(8, 24)
    assert weighted_sum(sources(x, x.T @ np.full(8, 0.125) + 0.5)) is None
    assert weighted_sum(sources(normal(8, 8), normal(1, 8))) is None


def test_a_subset_needs_equal_weights():
    x = normal(6)
    weights = np.array([0, 0.5, 0.5, 0, 0, 0])
    fit = weighted_sum(sources(x, weights @ x))
    assert subset_of(sources(x, weights @ x), fit).weights.tolist() == weights.tolist()
    weights = np.array([0, 0.4, 0.6, 0, 0, 0])
    fit = weighted_sum(sources(x, weights @ x))
    assert subset_of(sources(x, weights @ x), fit) is None


def test_the_initial_share_is_of_variances_alone():
    x = normal(3, 128)
    weights = np.array([0.2, 0.1, 0.2])
    t = weights @ x
    t[64:] += 0.5
    fit = weighted_sum(sources(x, t, "statistics"), initial=True)
    assert fit.initial == pytest.approx(0.5)
    assert np.allclose(fit.weights, weights)
    assert weighted_sum(sources(x, t, "weight"), initial=True) is None


def test_pooling_needs_the_variance_between_the_means():
    rng = np.random.default_rng(2)
    mean, var = rng.normal(size=(3, 64)), rng.uniform(0.5, 2, (3, 64))
    x = np.hstack([mean, var])
    total = np.concatenate([mean.mean(0), var.mean(0) + mean.var(0)])
    assert pooled(sources(x, total, "statistics")).made is Made.POOLED
    assert pooled(sources(x, x.mean(0), "statistics")) is None
    assert pooled(sources(x, total, "weight")) is None
    # n/(n-1) is another convention
    assert pooled(sources(x, np.hstack([mean.mean(0), var.mean(0) + mean.var(0, ddof=1)]),
                          "statistics")) is None  # fmt: skip


def test_values_that_no_file_can_give():
    x = normal()
    t = x.mean(0)
    t[3] = np.nan
    found = sources(x, t)
    assert found.broken.nonzero()[0].tolist() == [3]
    assert one_of(found) is None
    assert mean_of(found) is None
    x[:, 3] = np.nan
    assert mean_of(sources(x, t)).made is Made.MEAN  # of the other values
    assert one_of(sources(np.vstack([x, t]), t)).made is Made.FILE


@pytest.mark.parametrize(
    "fault",
    [
        ("TELLING", 1e12, "certainty"),
        ("FEWEST_PER_FILE", 1000, "fit"),
        ("KNOWN", 0.0, "unique"),
    ],
)
def test_each_limit_decides(monkeypatch, fault):
    """With another limit the same files are judged in another way."""
    name, value, what = fault
    x = normal()
    t = np.array([0.1, 0.2, 0.3, 0.4]) @ x
    before = weighted_sum(sources(x, t))
    assert before.unique
    assert before.certainty is Certainty.CERTAIN
    monkeypatch.setattr(sums, name, value)
    after = weighted_sum(sources(x, t))
    assert {
        "certainty": after is not None and after.certainty is Certainty.LIKELY,
        "fit": after is None,
        "unique": after is not None and not after.unique,
    }[what]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("way", ["sum", "divided", "running", "float64"])
def test_each_usual_way_to_a_mean_is_repeated_bit_for_bit(way, dtype):
    """As NumPy computes it in the dtype, one operation after the other."""
    x = encode(normal(7), dtype)
    kind = x.dtype.type
    if way == "sum":
        t = sum(x[1:], start=x[0]) / kind(7)
    elif way == "divided":
        t = x[0] / kind(7)
        for each in x[1:]:
            t = t + each / kind(7)
    elif way == "running":
        t = x[0]
        for number, each in enumerate(x[1:], 2):
            t = t + (each - t) / kind(number)
    else:
        t = x.astype(np.float64).mean(0)
    fit = mean_of(sources(x.astype(np.float64), t.astype(np.float64), dtype=dtype))
    assert fit.made is Made.MEAN
    assert fit.exact
