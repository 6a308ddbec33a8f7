"""The row of a pair of layers, and numbers as people read them."""

from __future__ import annotations

import pytest

from bncli.commands.compare_checkpoints.rows import (
    COLUMNS,
    LABELS,
    Numbers,
    furthest_ratio,
    layer_row,
    layers_table,
    plain,
    short_certainty,
)
from bncli.model.changes import Found, How, LayerVersion, Measures, Same, State
from bncli.report import Certainty


def version(name: str, state: State, other: str = "", **measures: float) -> LayerVersion:
    how = How.NAME if name and other else None
    return LayerVersion(
        name, other, how, Certainty.LIKELY, Found(state), Measures(**measures), channels=4
    )


def test_a_row_has_every_column_and_null_for_what_is_not_there():
    row = layer_row(version("a", State.LOST))
    assert list(row) == [column.key for column in COLUMNS]
    assert (row["name"], row["other_name"], row["match"]) == ("a", None, None)
    assert (row["state"], row["certainty"], row["match_certainty"]) == ("lost", "certain", None)
    assert row["var_ratio"] is row["z_max"] is row["what"] is None
    assert layer_row(version("", State.LOST, "b"))["name"] is None


def test_a_matched_layer_without_a_name_is_the_file_itself():
    layer = LayerVersion(
        "",
        "",
        How.NAME,
        Certainty.LIKELY,
        Found(State.TRAINED, "for 3 batches", certainty=Certainty.ASSUMED),
        before=Same.MOVED,
        before_name="conv",
    )
    row = layer_row(layer)
    assert row["name"] == row["other_name"] == "(the file itself)"
    assert (row["match"], row["match_certainty"], row["certainty"]) == ("name", "likely", "assumed")
    assert (row["before"], row["before_name"], row["what"]) == ("moved", "conv", "for 3 batches")


@pytest.mark.parametrize(
    ("low", "high", "furthest"),
    [(0.5, 1.9, 0.5), (0.5, 2.1, 2.1), (0.0, 9.0, 0.0), (1.0, 1.0, 1.0), (None, None, None)],
)
def test_the_ratio_that_is_furthest_from_1(low, high, furthest):
    assert furthest_ratio(Measures(var_ratio_min=low, var_ratio_max=high)) == furthest


def test_numbers_of_several_layers_are_ranges():
    layers = [
        version("a", State.TRAINED, "a", batches=40, z_min=0.1, z_max=0.5, effect=2.0),
        version("b", State.TRAINED, "b", batches=38, z_min=0.2, z_max=0.9),
    ]
    numbers = Numbers.of(layers)
    assert (numbers.batches, numbers.moved, numbers.effect) == ((38, 40), (0.1, 0.9), (2.0, 2.0))
    assert numbers.ratio is numbers.change is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0213, "0.021"),
        (2.134, "2.13"),
        (1002.4, "1002"),
        (2e7, "2e+07"),
        (-40, "-40"),
        (1, "1"),
        (0.9981, "0.9981"),
    ],
)
def test_a_plain_number(value, said):
    assert plain(value) == said


def test_every_state_and_certainty_has_a_word():
    assert set(LABELS) == set(State)
    assert [short_certainty(each) for each in Certainty] == ["certain", "likely", "assumed"]


def test_the_note_is_left_out_where_there_are_no_rows():
    assert layers_table([]).note == ""
    assert "furthest from 1" in layers_table([version("a", State.LOST)]).note
