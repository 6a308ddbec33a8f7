"""The command's main table, with floats in full."""

from __future__ import annotations

import csv
import io
import json

import pytest

from bncli.renderers import Format
from tests.renderers.reports import render, report


def test_csv_carries_the_first_table_alone(everything):
    text = render(Format.CSV, everything)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == [column.key for column in everything.tables[0].columns]
    assert len(rows) == 4
    assert [row["value"] for row in rows] == ["0.3333333333333333", "nan", "inf", "-inf"]
    assert [row["ok"] for row in rows] == ["true", "false", "true", "false"]
    assert [json.loads(row["index"]) for row in rows] == [[0, 1], [], [3], [1.5]]
    assert {row["gone"] for row in rows} == {""}


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (True, "true"),
        (-1.5, "-1.5"),
        (-7, "-7"),
        ("-7", "-7"),  # a spreadsheet sees a number, and nothing else
        ("-inf", "'-inf"),
        ("-1_0", "'-1_0"),
        ("=1+1", "'=1+1"),
        ("  @x", "'  @x"),
        ("'x", "''x"),
        ("\tx", r"'\x09x"),
        ("::error::x", "'::error::x"),
        ("a,b", '"a,b"'),
        ('a"b', '"a""b"'),
        ("a;b", '"a;b"'),
        ("a|b", '"a|b"'),
        ("a b", "a b"),
        ([0, 1], '"[0, 1]"'),
        (("雪",), '"[""雪""]"'),
    ],
)
def test_a_cell(value, cell):
    text = render(Format.CSV, report([{"a": value, "b": 1}], ("a", "b")))
    assert text == f"a,b\n{cell},1\n"


def test_an_empty_record_is_written_as_one():
    assert render(Format.CSV, report([{"a": None}, {"a": 1}], ("a",))) == 'a\n""\n1\n'
