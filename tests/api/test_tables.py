"""Tables in Python: rows, columns, DataFrames."""

from __future__ import annotations

import math
import sys

import pytest

from bncli import report
from bncli.api.tables import Table
from bncli.errors import MissingBackendError
from bncli.report import Column

ROWS = [
    {"name": "a", "count": 3, "mean": 1.5, "many": None, "flag": True, "big": 2**70, "runs": [1, 2],
     "some": None, "maybe": None},
    {"name": None, "count": 4, "mean": None, "many": 7, "flag": False, "big": 1, "runs": [],
     "some": None, "maybe": True},
]  # fmt: skip


@pytest.fixture
def table():
    return Table.of(report.Table("layers", "Layers", Column.plain(*ROWS[0]), ROWS, note="a note"))


def test_it_is_the_same_table(table):
    assert isinstance(table, report.Table)
    assert (table.key, table.note, table.rows) == ("layers", "a note", ROWS)
    assert list(table) == ROWS
    assert len(table) == 2
    assert table["count"] == [3, 4]
    with pytest.raises(KeyError, match="the table layers has no column 'x': name, count"):
        _ = table["x"]
    assert repr(table).startswith("<table layers: 2 rows of name, count")


def test_it_becomes_a_data_frame(table):
    frame = table.to_pandas()
    assert list(frame.columns) == list(ROWS[0])
    assert {key: str(dtype) for key, dtype in frame.dtypes.items()} == {
        "name": "object", "count": "int64", "mean": "float64", "many": "Int64", "flag": "bool",
        "big": "object", "runs": "object", "some": "object", "maybe": "boolean",
    }  # fmt: skip
    assert frame["count"].sum() == 7
    assert math.isnan(frame["mean"][1])
    assert frame.isna().sum().to_dict() == {
        "name": 1, "count": 0, "mean": 1, "many": 1, "flag": 0, "big": 0, "runs": 0, "some": 2,
        "maybe": 1,
    }  # fmt: skip
    assert frame["big"][0] == 2**70


def test_numbers_that_are_not_finite_stay_as_they_are():
    rows = [{"x": math.inf}, {"x": math.nan}, {"x": 1}]
    values = Table.of(report.Table("t", "T", Column.plain("x"), rows)).to_pandas()["x"].tolist()
    assert values[0] == math.inf
    assert math.isnan(values[1])
    assert values[2] == 1.0


def test_an_empty_table_has_its_columns():
    frame = Table.of(report.Table("t", "T", Column.plain("x", "y"), [])).to_pandas()
    assert list(frame.columns) == ["x", "y"]
    assert len(frame) == 0


def test_without_pandas_it_is_said_how_to_install_it(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingBackendError, match=r"pandas is not installed; `pip install pandas`"):
        table.to_pandas()
