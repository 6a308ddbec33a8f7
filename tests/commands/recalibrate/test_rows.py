"""The tables: how far each layer moves, by its definition, and what the answer shows of it."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.commands.recalibrate.rows import answer, layer_rows, layers_table, left_table
from bncli.model import BatchNormState
from bncli.model.recalibration import LayerChange


def change(name="bn", mean=(0.0, 3.0), var=(1.0, 4.0), new_mean=(0.5, 1.0), new_var=(1.0, 1.0)):
    state = BatchNormState(name, running_mean=np.array(mean), running_var=np.array(var))
    error = np.array([0.01, 0.02])
    return LayerChange(name, state, np.array(new_mean), np.array(new_var), 640, 10, 5, error)


def test_a_row_by_hand():
    """z = (0.5, -2), new over old variance = (1, 1/4): half its logarithm is ln 2."""
    (row,) = layer_rows([change()])
    assert row["z_max"] == pytest.approx(2, rel=1e-4)
    assert row["var_ratio_min"] == pytest.approx(0.25, rel=1e-4)
    assert row["var_ratio_max"] == pytest.approx(1, rel=1e-4)
    assert row["moved"] == pytest.approx(np.hypot(2, np.log(2)), rel=1e-4)
    assert (row["standard_error"], row["worst_channel"]) == (0.02, 1)
    worst = [row[key] for key in ("old_mean", "new_mean", "old_var", "new_var")]
    assert worst == [3.0, 1.0, 4.0, 1.0]
    assert [row[key] for key in ("channels", "values", "samples", "batches")] == [2, 640, 10, 5]


def test_what_is_not_finite_is_null_and_comes_first():
    rows = layer_rows([change("good"), change("nan", mean=(np.nan, 0.0))])
    assert (rows[1]["z_max"], rows[1]["moved"], rows[1]["worst_channel"]) == (None, None, 0)
    (table,) = answer(rows)
    assert [row["name"] for row in table.rows] == ["nan", "good"]
    assert table.rows[0]["mean"] is None


def test_the_worst_layers_are_shown_and_the_others_summed_up():
    layers = [change(f"bn{n}", new_mean=(0.0, 3.0 + n), new_var=(1.0, 4.0)) for n in range(10)]
    (table,) = answer(layer_rows(layers))
    assert [row["name"] for row in table.rows] == [f"bn{n}" for n in range(9, 1, -1)]
    assert table.rows[0]["mean"] == "4.5 std"
    assert table.note == "2 more layers: up to 0.5 std, variance times 1 (-v lists them)"
    (table,) = answer(layer_rows(layers), most=9)
    assert table.note == "1 more layer: up to 0 std, variance times 1 (-v lists it)"
    (table,) = answer(layer_rows(layers[:2]))
    assert table.note == ""


def test_no_layer():
    assert answer([]) == ()
    assert layers_table([]).note == ""
    assert left_table({"bn": "frozen"}).rows == [{"name": "bn", "why": "frozen"}]
