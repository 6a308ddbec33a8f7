"""The tables that commands share, beside what they describe."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.model import Closeness
from bncli.sections.tables import differences_answer
from tests.commands.samples import column, random, rows_of, table


def test_the_output_table_describes_the_saved_output(run, save):
    x = random(8, 3, 5)
    weight = save("w.npy", np.array([1.5, -2.0, 0.0], np.float32))
    bias = save("b.npy", np.array([0.25, 0.0, -1.0], np.float32))
    result = run(
        "compute", save("x.npy", x), "--weight", weight, "--bias", bias, "--save-output", "y.npy",
        "-f", "json",
    )  # fmt: skip
    y = rows_of(np.load("y.npy"))
    for key, expected in (
        ("mean", y.mean(1)), ("std", y.std(1)), ("min", y.min(1)), ("max", y.max(1))
    ):  # fmt: skip
        np.testing.assert_allclose(column(result, key, "output"), expected, rtol=1e-6, atol=1e-6)


def test_per_input_adds_a_row_for_each(run, save):
    parts = [random(4, 3, seed=seed) for seed in range(2)]
    names = [save(f"{i}.npy", part) for i, part in enumerate(parts)]
    rows = table(run("compute", *names, "--per-input", "-f", "json"), "inputs")
    assert [(row["input"], row["channel"]) for row in rows] == [
        (name, c) for name in names for c in range(3)
    ]
    for row in rows:
        values = rows_of(parts[names.index(row["input"])])[row["channel"]]
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-13)
        assert row["var"] == pytest.approx(values.var(), rel=1e-12)
        assert row["unbiased_var"] == pytest.approx(values.var(ddof=1), rel=1e-12)
        assert (row["min"], row["max"]) == (values.min(), values.max())
    assert "inputs" not in run("compute", *names, "-f", "json").report["tables"]


def test_within_and_between_add_up_to_the_variance(run, save):
    parts = [random(n, 3, 4, seed=n, mean=n) for n in (2, 3, 7)]
    result = run("compute", *(save(f"{i}.npy", p) for i, p in enumerate(parts)), "-f", "json")
    flat = [rows_of(part) for part in parts]
    whole = np.concatenate(flat, axis=1)
    total = whole.shape[1]
    within = sum(rows.shape[1] * rows.var(1) for rows in flat) / total
    between = sum(rows.shape[1] * (rows.mean(1) - whole.mean(1)) ** 2 for rows in flat) / total
    np.testing.assert_allclose(column(result, "within_var", "spread"), within, rtol=1e-12)
    np.testing.assert_allclose(column(result, "between_var", "spread"), between, rtol=1e-11)
    np.testing.assert_allclose(
        column(result, "within_var", "spread") + column(result, "between_var", "spread"),
        column(result, "var"),
        rtol=1e-12,
    )
    f_ratio = (between / (len(flat) - 1)) / (within / (total - len(flat)))
    np.testing.assert_allclose(column(result, "f_ratio", "spread"), f_ratio, rtol=1e-11)


def closeness(quantity: str, used: float, index: tuple[int, ...] = (1,)) -> Closeness:
    """A quantity that uses a share of its tolerance, in 3 of 4 values if that is above 1."""
    off = 3 if used > 1 else 0
    numbers = {"max_abs_diff": used * 1e-6, "max_rel_diff": 0.0, "max_mismatch": 0.0}
    tolerance = {"rtol": 0.0, "atol": 1e-6, "passing_atol": 0.0}
    return Closeness(
        quantity, index=index, actual=1.5, expected=1.25, mismatched=off, total=4, used=used,
        **numbers, **tolerance,
    )  # fmt: skip


def test_the_quantities_that_differ_or_nearly_do_are_told_worst_first():
    compared = [
        closeness("mean", 0.42),
        closeness("var", 0.95, (3,)),
        closeness("output", 2.5, (0, 3, 1)),
        closeness("num_batches_tracked", 40.0, ()),
        closeness("invstd", 0.2),
    ]
    (found,) = differences_answer(compared, "torch 2.13.0")
    assert found.title == "Against torch 2.13.0"
    assert [(row["quantity"], row["at"], row["mismatched"]) for row in found.rows] == [
        ("num_batches_tracked", None, "3 of 4"),
        ("output", "(0, 3, 1)", "3 of 4"),
        ("var", "channel 3", "0 of 4"),
    ]
    assert found.note == "2 more quantities use at most 42% of their tolerances (-v lists them)"
    (found,) = differences_answer(compared[:3], "torch", {"var": "sample"}.get)
    assert found.rows[1]["at"] == "sample 3"
    assert found.note == "1 more quantity uses 42% of its tolerance (-v lists it)"
    assert differences_answer(compared[::4], "torch") == ()
    assert differences_answer([], "torch") == ()


def test_few_of_many_differences_are_told():
    (found,) = differences_answer([closeness(f"q{n}", 2.0 + n) for n in range(15)], "torch")
    assert [row["quantity"] for row in found.rows] == [f"q{n}" for n in range(14, 4, -1)]
    assert found.note == "5 more quantities differ (-v lists them)"
