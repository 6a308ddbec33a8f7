"""The statistics of some batches as bytes: what comes back is what went in, bit for bit."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from bncli.running_stats.batch_shares import FEW, packed, unpacked
from bncli.running_stats.collect import Collector

COUNTS = [(9, 4), (1, 4), (3, 1), (2, 1), (1, 1), (6, 5)]
"""Samples and places of each batch: enough for a fourth cumulant, too few for one, one value."""


def measured(dtype):
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, (n, 3, places)).astype(np.float32) for n, places in COUNTS]
    collector = Collector(len(batches), 3, dtype)
    wanted = collector.wanted([n * places for n, places in COUNTS])
    rows = [collector.measure(x, wanted=w) for x, w in zip(batches, wanted, strict=True)]
    return batches, dict(enumerate(rows))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_number_comes_back(dtype):
    _, rows = measured(dtype)
    for number, row in unpacked(packed(rows, 3)).items():
        for field in fields(row):
            got, expected = getattr(row, field.name), getattr(rows[number], field.name)
            if field.name == "fourth" and hasattr(expected, "shift"):
                assert got.count == expected.count
                for name in FEW:
                    np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
            else:
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("few", [False, True])
def test_what_was_packed_makes_the_same_table(few):
    """With small batches alone, the kurtosis is that of all of them together."""
    batches, rows = measured("float32")
    if few:
        batches, rows = batches[2:5], {i: rows[2 + i] for i in range(3)}
    whole = Collector(len(batches), 3, "float32")
    parts = Collector(len(batches), 3, "float32")
    for x in batches:
        whole.add(x)
    shares = [{i: row for i, row in rows.items() if i % 2 == share} for share in (0, 1)]
    gathered = {i: row for share in shares for i, row in unpacked(packed(share, 3)).items()}
    for i in range(len(batches)):
        parts.take(gathered[i])
    for name in ("count", "mean", "var", "held_mean", "held_var_sum"):
        np.testing.assert_array_equal(getattr(parts.table(), name), getattr(whole.table(), name))
    np.testing.assert_array_equal(parts.kurtosis(), whole.kurtosis())
    np.testing.assert_array_equal(parts.samples().squares, whole.samples().squares)
    assert parts.engines == whole.engines
    assert not np.isnan(whole.kurtosis()).all()


def test_no_batches():
    assert unpacked(packed({}, 3)) == {}
