"""What `bncli diff INPUT` says first, and when it says that a difference is rounding."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bncli.commands.diff.mode_answer import quantities_answer, verdict, worst_findings_first
from bncli.model import Closeness
from bncli.rulebook.comparison import ALLOW_MORE, DIFFERS, LOST_DIGITS
from bncli.verify.budget import BudgetLine
from tests.commands.samples import random

FORWARD = (
    "what differs in the forward pass is float32 rounding; the gradients are up to 300 ULP from "
    "exact"
)


def closeness(quantity, used, *, passed=True, index=(1,), channels=2):
    whole = Closeness(
        quantity, used, 0.1, index, 1.5, 1.0, 0 if passed else 3, 10, 1e-6, 1e-7, used, 0.5,
        0.0 if passed else 0.5,
    )  # fmt: skip
    return SimpleNamespace(whole=whole, channels=(whole,) * channels)


def result(*items, mode="training", repeated=0.0, error=0.5, exact=2):
    lines = [
        BudgetLine(
            item.whole.quantity, exact, 0.0, 0.0, 1e-7, error,
            None if item.whole.quantity.startswith("grad_") else repeated,
        )
        for item in items
    ]  # fmt: skip
    compared = SimpleNamespace(quantities=items)
    return SimpleNamespace(
        mode=mode, compared=compared, budget=lines, done=SimpleNamespace(channel_axis=1)
    )


def shown(*results):
    table = quantities_answer(results, "torch")
    return [(row["quantity"], row["used"]) for row in table.rows], table


def test_the_quantities_that_come_near_are_shown_worst_first():
    rows, table = shown(
        result(
            closeness("output", 0.2, index=(4, 1, 0)),
            closeness("mean", 0.6),
            closeness("var", 0.1),
            closeness("num_batches_tracked", 0.0, index=()),
        )
    )
    assert rows == [("mean", "60%"), ("output", "20%")]
    assert table.note == "2 more quantities use at most 10% (-v lists them)"
    tiny = shown(result(closeness("mean", 0.6), closeness("var", 0.001)))[1]
    assert tiny.note == "1 more quantity uses less than 1% (-v lists them)"
    assert [row["channel"] for row in table.rows] == [1, 1]
    assert "mode" not in [column.key for column in table.columns]


def test_every_quantity_that_failed_is_shown_before_the_others():
    rows, table = shown(
        result(closeness("output", 50.0, passed=False), closeness("mean", 0.3)),
        result(closeness("output", 1.5, passed=False), closeness("var", 0.0), mode="eval"),
    )
    assert rows == [("output", "50 times"), ("output", "150%"), ("mean", "30%")]
    assert [row["mode"] for row in table.rows] == ["training", "eval", "training"]
    assert table.rows[0]["off"] == "3 of 10"
    assert table.note == "1 more quantity does not differ at all"


def test_where_nothing_differs_the_output_is_shown():
    rows, table = shown(result(closeness("output", 0.0), closeness("mean", 0.0)))
    assert rows == [("output", "0%")]
    assert table.note == "1 more quantity does not differ at all"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "what differs is float32 rounding"),
        ({"repeated": 2.0}, "output comes closest to its tolerance, using 40% of it"),
        ({"repeated": None}, "output comes closest to its tolerance, using 40% of it"),
        ({"error": 300.0}, FORWARD),
        ({"error": None}, "output comes closest to its tolerance, using 40% of it"),
        ({"exact": 1}, "output comes closest to its tolerance, using 40% of it"),
    ],
)
def test_rounding_is_said_only_where_the_budget_proves_it(more, said):
    one = result(closeness("output", 0.4), closeness("grad_input", 0.1), **more)
    assert verdict([one], "torch 2.3", [], None) == (
        f"torch 2.3 agrees in 2 of 2 quantities; {said}"
    )


def test_a_quantity_without_a_line_proves_nothing():
    one = result(closeness("output", 0.4))
    one.budget.clear()
    assert "rounding" not in verdict([one], "torch 2.3", [], None)
    none = result(closeness("output", 0.0))
    assert verdict([none], "torch 2.3", [], None).endswith("; all are equal")


def test_a_tolerance_narrower_than_rounding_is_named():
    one = result(closeness("output", 40.0, passed=False), closeness("mean", 0.0))
    assert verdict([one], "torch 2.3", [], (0.0, 1e-9)) == (
        "torch 2.3 differs in 1 of 2 quantities: output; what differs is float32 rounding, which "
        "rtol 0 and atol 1e-09 do not allow"
    )
    assert verdict([one], "torch 2.3", [], None).endswith("quantities: output")
    worse = replace(one.budget[0], repeated_ulp=9.0)
    one.budget[0] = worse
    assert verdict([one], "torch 2.3", [], (0.0, 1e-9)).endswith("quantities: output")


def test_the_default_fits_a_screen_and_v_has_everything(run, save):
    x = np.array([1, 2, 5, 6, 3, 4, 7, 8] * 2, np.float32).reshape(2, 2, 2, 2)
    save("x.npy", x)
    lines = run("diff", "x.npy", "--width", "80").stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("x.npy  float32 (2, 2, 2, 2)  BatchNorm2d, eps 1e-05, momentum 0.1")
    assert any(line.startswith("against torch ") for line in lines[:3])
    full = run("diff", "x.npy", "--width", "200", "-v").stdout
    for title in ("bncli against torch", "Channels, the worst first", "Error budget in float32"):
        assert title in full
        assert title not in "\n".join(lines)


def test_a_flag_adds_its_table(run, save):
    save("x.npy", random(6, 3, 5))
    assert "Error budget in float32" in run("diff", "x.npy", "--budget").stdout
    assert "Channels, the worst first" in run("diff", "x.npy", "--channel", "0").stdout
    assert "Every quantity and channel" in run("diff", "x.npy", "--per-quantity").stdout
    wide = run("diff", "x.npy", "--budget", "--dtype", "float64").stdout
    assert "no error budget: it is computed in float32 only, and this is float64" in wide


def differing(quantity, used, **more):
    evidence = {"tolerance_used": used, "max_mismatch": 0.5, "mismatched": 3, "total": 9}
    return DIFFERS.finding(quantity, "it differs", evidence | more)


def test_findings_of_quantities_are_worst_first_and_brief():
    other = LOST_DIGITS.finding("output", "digits are lost", {})
    near, far = differing("mean", 2.0), differing("output", 90.0, mismatched=1)
    found = worst_findings_first([near, other, far], "torch 2.3", rounding=False)
    assert [one.subject for one in found] == ["output", "output", "mean"]
    assert [one.message for one in found] == [
        "digits are lost", "1 of 9 values differs, by up to 0.5",
        "3 of 9 values differ, by up to 0.5",
    ]  # fmt: skip
    assert {one.claim for one in found[1:]} == {"values differ from torch 2.3"}
    assert worst_findings_first([near], "torch 2.3", rounding=False) == [near]


def test_what_is_proven_to_be_rounding_has_the_tolerance_for_a_fix():
    (found,) = worst_findings_first([differing("mean", 2.0)], "torch 2.3", rounding=True)
    assert found.hint == ALLOW_MORE


def test_values_that_are_not_finite_are_off_by_no_number():
    nan = differing("mean", math.inf, max_mismatch=math.inf)
    found = worst_findings_first([nan, differing("var", 2.0)], "torch 2.3", rounding=False)
    assert found[0].message == "3 of 9 values differ, NaN or Inf on one side"
