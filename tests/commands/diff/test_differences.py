"""The rows of a comparison: in ULPs and standard deviations, the worst first."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bncli.commands.diff.differences import (
    ChannelFacts,
    channel_row,
    channels_answer,
    in_ulps,
    worst_first,
)
from bncli.moments import channel_stats
from bncli.report import Column
from bncli.verify.stored_pair import compare_stored


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [1.0, 1.5, 1024.0, 1e-3])
def test_a_difference_in_ulps_is_that_of_numpy(dtype, size):
    spacing = float(np.spacing(np.dtype(dtype).type(size)))
    assert in_ulps(3 * spacing, size, dtype) == pytest.approx(3, rel=1e-12)


def test_values_that_are_not_finite_have_no_ulp():
    assert in_ulps(1.0, math.inf, "float32") is None


def test_the_facts_of_channels_are_those_of_numpy():
    x = np.random.default_rng(0).normal(3.0, 2.0, (64, 3))
    facts = ChannelFacts.of(channel_stats(x), 3)
    assert facts.mean == pytest.approx(x.mean(0).tolist(), rel=1e-13)
    assert facts.std == pytest.approx(x.std(0).tolist(), rel=1e-13)
    assert facts.condition == pytest.approx((abs(x.mean(0)) / x.std(0)).tolist(), rel=1e-13)
    assert ChannelFacts.of(None, 2) == ChannelFacts([None] * 2, [None] * 2, [None] * 2)


def test_a_row_measures_the_difference_by_the_channel(save):
    from bncli.loaders import open_tensor

    expected = np.random.default_rng(1).normal(0.0, 1.0, (8, 2))
    actual = expected.copy()
    actual[3, 1] += 0.5
    save("a.npy", actual)
    save("b.npy", expected)
    pair = open_tensor("a.npy"), open_tensor("b.npy")
    compared = compare_stored(*pair, "x", 1, (1e-7, 1e-7), equal_nan=False)
    facts = ChannelFacts.of(None, 2)
    row = channel_row(compared, 1, "float64", facts, 0.25)
    assert row["max_abs_diff"] == pytest.approx(0.5)
    assert row["diff_over_std"] == pytest.approx(2.0)
    assert (row["mismatched"], row["total"]) == (1, 8)
    assert (row["actual"], row["expected"]) == (actual[3, 1], expected[3, 1])
    for unit in (None, 0.0, math.inf):
        assert channel_row(compared, 1, "float64", facts, unit)["diff_over_std"] is None


def test_the_worst_use_most_of_their_tolerance_and_then_differ_most():
    rows = [
        {"tolerance_used": used, "max_abs_diff": furthest}
        for used, furthest in ((0.5, 1.0), (2.0, 0.1), (0.5, 3.0), (math.inf, 0.2))
    ]
    order = [(row["tolerance_used"], row["max_abs_diff"]) for row in worst_first(rows)]
    assert order == [(math.inf, 0.2), (2.0, 0.1), (0.5, 3.0), (0.5, 1.0)]


def rows_of(*passed):
    """A row a channel, of which some passed; each is off by less than the one before it."""
    return [
        {
            "channel": c, "passed": good, "tolerance_used": 0.5 if good else 2.0,
            "max_abs_diff": 200.0, "max_mismatch": 0.0 if good else 100.0 - c, "difference": 200.0,
            "difference_in_std": 0.1, "difference_in_ulp": 3.0, "mismatched": 1 - good, "total": 8,
            "std": 1.0, "index": [c], "actual": 1.0, "expected": 2.0,
        }
        for c, good in enumerate(passed)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("passed", "note"),
    [
        ([False] * 20, ""),
        ([False] * 21, "1 more channel differs, by at most 80 (-v lists them)"),
        ([False] * 20 + [True] * 3, "3 more channels agree (-v lists them)"),
        (
            [False] * 23 + [True],
            "3 more channels differ, by at most 80; 1 more channel agrees (-v lists them)",
        ),
    ],
)
def test_twenty_channels_are_shown_and_the_others_counted(passed, note):
    answer = channels_answer(rows_of(*passed), (Column("channel", "channel"),), ("a.npy", "b.npy"))
    assert [row["channel"] for row in answer.rows] == list(range(20))
    assert answer.note == note
    assert answer.rows[0]["off"] == "1 of 8"
    assert {"a.npy", "b.npy"} < {column.title for column in answer.columns}


def test_a_row_tells_of_the_value_that_uses_most_of_its_tolerance():
    (row,) = rows_of(False)
    row |= {"max_mismatch": 3.0, "difference": 0.5}
    answer = channels_answer([row], (Column("channel", "channel"),), ("a.npy", "b.npy"))
    assert "difference" in [column.key for column in answer.columns]
    assert "max_abs_diff" not in [column.key for column in answer.columns]
    assert answer.note == "difference: at the value that uses most of its tolerance"
