"""The tables of a capture, from layers made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bncli.commands.capture.tables import input_table, layers_answer, layers_table
from bncli.model import BatchNormModule, BatchNormState
from bncli.model.capture import Capture, Propagation, WatchedLayer
from bncli.moments.batches import BatchSums

TRAINING, EVAL = Propagation.TRAINING, Propagation.EVAL


def sums(values):
    pool = BatchSums(values.shape[1])
    pool.add(values)
    return pool.result()


X = np.array([[1.0, -2.0], [3.0, np.inf], [5.0, np.nan]])


def layer(name="bn", order=1, **more) -> WatchedLayer:
    module = BatchNormModule("BatchNorm1d", eps=1e-3, momentum=None)
    state = BatchNormState(name, running_var=np.array([1.0, np.nan]), module=module)
    return WatchedLayer(name, order, 2, state=state, seen={EVAL: sums(X)}, **more)


def test_a_row_has_ranges_of_what_is_finite():
    (row,) = layers_table(Capture((layer(),))).rows
    assert (row["mean_min"], row["mean_max"]) == (3.0, 3.0)
    assert row["var_max"] == 8 / 3
    assert (row["nan"], row["inf"]) == (1, 1)
    assert (row["running_var_min"], row["running_mean_min"]) == (1.0, None)
    assert (row["momentum"], row["eps"], row["class_name"]) == ("none", 1e-3, "BatchNorm1d")


def test_the_first_mode_that_ran_is_shown():
    both = replace(layer(), seen={EVAL: sums(X), TRAINING: sums(X[:1])})
    (row,) = layers_table(Capture((both,))).rows
    assert (row["values"], row["mean_min"]) == (1, -2.0)
    assert "in training, over its channels" in layers_answer(Capture((both,))).note
    assert "in eval, over its channels" in layers_answer(Capture((layer(),))).note


def test_the_input_stands_first_in_the_answer_alone():
    given = WatchedLayer("input", 0, 2, seen={EVAL: sums(X)})
    capture = Capture((given, layer()))
    assert [row["name"] for row in layers_answer(capture).rows] == ["input", "bn"]
    assert [row["name"] for row in layers_table(capture).rows] == ["bn"]
    first, second = input_table(capture).rows
    assert (first["mean"], first["min"], first["max"]) == (3.0, 1.0, 5.0)
    assert (second["mean"], second["nan"], second["inf"]) == (None, 1, 1)
    assert input_table(Capture((layer(),))).rows == []


def test_calls_are_shown_where_a_layer_has_several():
    def keys(*layers):
        return [column.key for column in layers_answer(Capture(layers)).columns]

    assert "calls" not in keys(layer())
    assert "calls" in keys(layer(), layer("other", 2, calls=3))


def test_layers_beyond_a_screen_are_counted():
    many = tuple(layer(f"bn{number}", number) for number in range(1, 24))
    answer = layers_answer(Capture(many))
    assert len(answer.rows) == 20
    assert answer.note.startswith("3 more layers (-v lists them); ")
    assert len(layers_table(Capture(many)).rows) == 23
