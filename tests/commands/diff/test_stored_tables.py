"""The full tables of `bncli diff ACTUAL EXPECTED`."""

from __future__ import annotations

import numpy as np

from tests.commands.samples import random, table


def test_tensors_stand_worst_first_with_counters_behind_them(run, save):
    weight, bias = random(4), random(4)
    save("a.npz", equal=bias, steps=np.array(5), bias=bias, weight=weight, gone=weight)
    gone = weight.copy()
    gone[2] = np.nan
    save(
        "b.npz", equal=bias, steps=np.array(45), bias=bias + np.float32(0.1),
        weight=weight + np.float32(0.5), gone=gone,
    )  # fmt: skip
    rows = table(run("diff", "a.npz", "b.npz", "-f", "json"), "differences")
    assert [row["quantity"] for row in rows] == ["gone", "weight", "bias", "steps", "equal"]
    assert rows[3]["max_abs_diff"] == 40


def test_channels_are_those_of_what_differs(run, save):
    same, other = random(4, 3), random(4, 2)
    save("a.npz", same=same, other=other)
    other = other.copy()
    other[:, 1] += 1
    save("b.npz", same=same, other=other)
    rows = table(run("diff", "a.npz", "b.npz", "-f", "json"), "channels")
    assert [(row["quantity"], row["channel"]) for row in rows] == [("other", 1), ("other", 0)]
