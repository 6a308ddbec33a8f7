"""Rows kept as columns are the rows that were put in."""

from __future__ import annotations

import pytest

from bncli.commands.inspect_checkpoint.rows import Rows

ROWS = [
    {"name": "bn", "mean_min": 0.5, "flags": None, "replaced": []},
    {"name": "xbn"[1:], "mean_min": None, "flags": "BN101", "replaced": ["eps"]},
    {"name": "bn2", "mean_min": float("inf"), "flags": None, "replaced": []},
]


def test_they_come_back_as_they_were():
    rows = Rows(ROWS)
    assert list(rows) == ROWS
    assert [rows[0], rows[-1]] == [ROWS[0], ROWS[-1]]
    assert rows == ROWS
    assert rows != ROWS[:2]
    assert len(rows) == 3
    assert rows
    assert not Rows()
    assert list(Rows()) == []


def test_some_of_them():
    rows = Rows(ROWS)
    for part in (slice(2), slice(1, None), slice(5, 9), slice(None, None, -1)):
        assert list(rows[part]) == ROWS[part]
        assert len(rows[part]) == len(ROWS[part])


@pytest.mark.parametrize("kind", [list, Rows, iter])
def test_others_are_put_behind_them(kind):
    rows = Rows(ROWS[:1])
    rows.extend(kind(ROWS[1:]))
    rows.extend(kind([]))
    rows.append(ROWS[0])
    assert list(rows) == [*ROWS, ROWS[0]]
    other = Rows(ROWS)
    other.extend(other[:1])
    assert len(other) == 4


def test_what_is_put_in_is_not_held():
    first = Rows(ROWS[:1])
    rows = Rows()
    rows.extend(first)
    rows.append(ROWS[1])
    assert len(first) == 1
    assert list(first) == ROWS[:1]
    rows[0]["name"] = "other"
    assert rows[0] == ROWS[0]


def test_a_column_is_filled_anew():
    rows = Rows(ROWS)
    rows.fill("flags", ["a", "b", "c"])
    assert [row["flags"] for row in rows] == ["a", "b", "c"]
    Rows().fill("flags", [])


def test_texts_are_kept_once():
    rows = Rows(ROWS)
    assert rows[0]["name"] is rows[1]["name"]


def test_other_keys_are_an_error():
    with pytest.raises(ValueError, match="other keys: name"):
        Rows(ROWS).append({"name": "bn"})
