"""The table of the worst layers: which of them, in what order, and what of the others."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bncli.commands.diagnose.answer import layers_table
from bncli.renderers import Format
from bncli.report import FailOn
from tests.findings import finding, report
from tests.renderers.reports import render


def row(name, error, **given):
    return {
        "name": name,
        "predicted_error": error,
        "noise": 0.05,
        "worst_channel": 2,
        "running_mean": 0.31,
        "running_var": 0.19,
        "mean": 4.2,
        "var": 20.0,
        "closes": None,
    } | given


def answer(*rows, findings=()):
    (table,) = layers_table(report(*findings), FailOn.ERROR, rows)
    return table


def names(table):
    return [each["name"] for each in table.rows]


def test_the_layers_that_are_off_the_worst_first():
    table = answer(row("a", 0.02), row("b", 0.3), row("c", 9.61), row("d", 0.099))
    assert names(table) == ["c", "b"]
    first = table.rows[0]
    assert (first["stored"], first["data"]) == ("0.31, 0.19", "4.2, 20")
    assert (first["off"], first["noise_said"]) == ("9.61 std", "0.05 std")
    assert (
        table.note == "mean, var: of the worst channel. 2 more layers below 0.1 std (-v lists them)"
    )


def test_the_worst_of_the_good_ones():
    table = answer(*(row(str(number), 0.01 * number) for number in range(1, 8)))
    assert names(table) == ["7", "6", "5"]
    assert "4 more layers below 0.1 std" in table.note


def test_no_more_rows_than_a_screen_holds():
    table = answer(*(row(str(number), 1.0 + number) for number in range(100)))
    assert len(table.rows) == 20
    assert "80 more layers up to 80 std (-v lists them)" in table.note


def test_one_more_layer():
    assert answer(row("a", 1.0), row("b", 0.0)).note.endswith(
        "1 more layer below 0.1 std (-v lists it)"
    )


def test_layers_that_were_not_measured_are_counted_alone():
    bare = row("c", None, noise=None, running_mean=None, running_var=None, mean=None, var=None)
    table = answer(row("a", 1.0), row("b", 0.0), bare)
    assert names(table) == ["a"]
    assert table.note.endswith("2 more layers (-v lists them)")
    assert answer(bare).rows == []


def test_long_names_leave_room_for_what_closes():
    """At 80 columns, with numbers as long as they get."""
    long = {"running_mean": -0.0138, "mean": -0.0138, "running_var": 19.7, "var": 0.0655}
    rows = [row("backbone.layers.44.bn1", 13.35, closes=-0.17, **long), row("b", 0.9)]
    given = replace(report(), answer=layers_table(report(), FailOn.ERROR, rows))
    lines = render(Format.TABLE, given, width=80).splitlines()
    heading = next(line for line in lines if line.startswith("layer"))
    assert re.split(" {3,}", heading) == [
        "layer", "stored mean, var", "data mean, var", "off by", "closes"
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("closes", "said"),
    [
        (0.954, "95%"),
        (-0.45, "-45%"),
        (0.004, "<1%"),
        (0.0, "0%"),
        (1.26, "100%"),
        (-9.99, "<-100%"),
        (None, None),
    ],
)
def test_how_much_a_layer_closes(closes, said):
    table = answer(row("a", 1.0, closes=closes), row("b", 0.5, closes=0.5))
    assert table.rows[0]["closes_said"] == said
    assert "closes: with new statistics in this layer alone" in table.note


def test_columns_that_say_nothing_are_left_out():
    keys = [column.key for column in answer(row("a", 1.0)).columns]
    assert keys == ["name", "worst_channel", "stored", "data", "off", "noise_said"]


def test_only_findings_that_count_are_named():
    found = finding("BN808", "a", evidence={"layer": "a"})
    table = answer(row("a", 1.0), row("b", 0.5), findings=[found])
    assert [each["flags"] for each in table.rows] == ["BN808", None]


def test_a_number_that_is_not_known_is_a_dash():
    table = answer(row("a", 1.0, running_var=None))
    assert table.rows[0]["stored"] == "0.31, -"
