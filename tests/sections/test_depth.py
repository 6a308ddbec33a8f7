"""Pictures over depth: which layers they show, where findings are marked, and what is said."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bncli.pictures import Kind
from bncli.report import Finding, Severity
from bncli.sections.depth import (
    MOST_LAYERS,
    band,
    by_layer,
    codes_said,
    drawn,
    factors,
    findings_said,
    furthest,
    known,
    layer_axis,
    level,
    marks,
    panel,
    points,
    ranges,
    sentences,
    spanned,
)

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.INFO


def finding(code, subject="a", severity=ERROR, message="is wrong"):
    return Finding(code, severity, subject, message, claim=f"{code} is so")


@pytest.mark.parametrize("number", [0, 1, MOST_LAYERS])
def test_few_layers_are_all_drawn(number):
    assert drawn(list(range(number)), lambda _: False) == list(range(number))


@pytest.mark.parametrize("number", [MOST_LAYERS + 1, 7 * MOST_LAYERS + 13])
def test_of_many_those_with_marks_are_drawn_and_others_evenly(number):
    shown = drawn(list(range(number)), lambda row: row > number - 10)
    assert len(set(shown)) == len(shown) == MOST_LAYERS
    assert shown == sorted(shown)
    assert set(range(number - 9, number)) <= set(shown)
    gaps = {after - before for before, after in pairwise(shown[:-9])}
    assert max(gaps) - min(gaps) <= 1
    assert len(drawn(list(range(number)), lambda _: True)) == MOST_LAYERS


@pytest.mark.parametrize(
    ("names", "title", "shown"),
    [
        (("m.a.1", "m.a.2"), "layer of m.a", ("1", "2")),
        (("m.a", "m.ab", "m.a.b"), "layer of m", ("a", "ab", "a.b")),
        (("ab", "ac"), "layer", ("ab", "ac")),
        (("m.a", "m"), "layer", ("m.a", "m")),
        (("m.a",), "layer", ("m.a",)),
        (("m.a", "m.a"), "layer of m", ("a", "a")),
        ((), "layer", ()),
    ],
)
def test_what_all_names_begin_with_stands_in_the_title(names, title, shown):
    axis = layer_axis(names)
    assert (axis.title, axis.names) == (title, shown)


def test_what_is_no_number_is_not_drawn():
    values = [1, 2.5, None, float("nan"), float("inf"), "3", True]
    assert known(values)[:6] == [1.0, 2.5, None, None, None, None]


def test_a_mark_has_the_worst_severity_and_all_codes():
    found = {
        4: [finding("BN3", severity=NOTE), finding("BN2", severity=ERROR)],
        1: [finding("BN3", severity=NOTE)],
        7: [finding("BN2"), finding("BN2")],
        9: [],
    }
    error, note = marks(found, 5.0)
    assert (error.severity, error.x, error.names) == (ERROR, (4, 7), ("BN2 BN3", "BN2"))
    assert (note.severity, note.x, note.names) == (NOTE, (1,), ("BN3",))
    assert (error.label, note.label) == ("error BN2 BN3", "note BN3")
    assert set(error.y) == {5.0}
    assert [each.label for each in marks(found, 5.0, coded=False)] == ["error", "note"]
    many = {at: [finding(f"BN{at}")] for at in range(4)}
    assert [each.label for each in marks(many, 1.0)] == ["error"]


@pytest.mark.parametrize(
    ("lows", "highs", "log"),
    [
        ([1e-3, None], [1e3, None], True),
        ([0.0, 2.0], [0.0, 3.0], True),
        ([-2.0, 0.0], [0.0, 0.0], False),
        ([1.0, 1.0], [1.0, 1.0], True),
        ([1e-300, 1.0], [1.0, 1.7e308], True),
    ],
)
def test_marks_stand_above_the_data(lows, highs, log):
    found = {0: [finding("BN2")]}
    made = panel("t", layer_axis("ab"), "m", [ranges("", lows, highs)], found)
    assert made.y.log is log
    assert made.x.names == ("a", "b")
    (mark,) = [each for each in made.series if each.severity]
    top = max(high for high in highs if high is not None)
    assert mark.y[0] > top or top > 1e308
    assert mark.y[0] <= max(10 * top, top * (top / 1e-300) ** 0.1, 1)


def test_a_panel_without_numbers_is_none():
    nothing = [points("a", [None, None]), level("b", 1.0)]
    assert panel("t", layer_axis("ab"), "m", nothing, {0: [finding("BN2")]}) is None
    made = panel("t", layer_axis("ab"), "m", [points("a", [None, 2.0]), level("b", 1.0)])
    assert [each.kind for each in made.series] == [Kind.POINTS, Kind.LEVEL]


@pytest.mark.parametrize(
    ("lows", "highs", "said"),
    [
        ([1.0, 2.0], [3.0, 40.0], "Over 2 layers, q goes from 1 in a to 40 in b."),
        ([1.0, None], [3.0, None], "Over 1 of 2 layers, q goes from 1 in a to 3 in a."),
        ([1.0, 1.0], [1.0, 1.0], "Over 2 layers, q is 1."),
        ([None, None], [None, None], ""),
    ],
)
def test_a_span_says_where_its_ends_are(lows, highs, said):
    assert spanned("q", lows, highs, ("a", "b")) == said
    assert spanned("q", [0.25], [4.0], ("a",)) == "Q goes from 0.25 to 4 in a."
    assert spanned("running_var", [1.0], [1.0], ("a",)) == "running_var is 1."


def test_of_findings_their_rules_and_layers_are_told_and_nothing_of_what_they_say():
    found = [finding("BN9", severity=NOTE), *(finding("BN2", name) for name in "abcde")]
    assert codes_said(found) == "BN2 in 5 layers, BN9 in a"
    assert findings_said(found) == f"The marks stand for findings: {codes_said(found)}."
    several = Finding("BN3", ERROR, "a", "is wrong", {"layers": ["a", "b", "70.1"]})
    places = Finding("BN4", ERROR, "a", "is wrong", places=("a", "b"))
    total = Finding("BN5", ERROR, "3 layers", "is wrong", places=("x",))
    lone = Finding("BN6", ERROR, "a", "is wrong", {"layer": "70.1"})
    assert codes_said([several, places, total, lone]) == (
        "BN3 in 3 layers, BN4 in 2 layers, BN5 in 3 layers, BN6 in '70.1'"
    )
    many = [finding(f"BN{at}") for at in range(7)]
    assert findings_said(many).endswith("BN4 in a, those of 2 more rules.")
    assert findings_said(()) == codes_said(()) == ""


def test_sentences_are_joined():
    assert sentences("A.", "", "B.") == "A. B."


def test_what_is_furthest_and_by_which_factors():
    names = ("a", "b", "c")
    assert furthest("It is off", [0.1, None, 0.3], names) == (
        "It is off by up to 0.3 standard deviations, in c."
    )
    assert factors("They are", [0.5, 0.25, None], [2.0, 1.0, None], names) == (
        "They are 0.25 (b) to 2 times (a) as large."
    )
    assert furthest("It is off", [None], "a") == factors("They are", [None], [None], "a") == ""


def test_factors_that_are_alike_are_said_once():
    one, more = [1e-5], [1e-5, 1e-5, None]
    assert factors("They became", one, one, "a") == "They became 1e-05 times as large in a."
    assert factors("They became", [0.5], [2], "a") == "They became 0.5 to 2 times as large in a."
    assert factors("They became", [0.5, None], [2, None], "ab") == (
        "They became 0.5 to 2 times as large in a."
    )
    assert factors("They became", more, more, "abc") == (
        "They became 1e-05 times as large in both layers where they are known."
    )
    assert factors("They became", [3.0001] * 3, [3] * 3, "abc") == (
        "They became 3 times as large in all 3 layers."
    )
    assert factors("They became", [3, 2], [3, 2.5], "ab") == (
        "They became 2 (b) to 3 times (a) as large."
    )


def test_a_band_goes_down_to_the_least_number():
    (made,) = band("noise", [0.2, None], [0.05, 0.0, None])
    assert (made.kind, list(made.y), list(made.upper)) == (Kind.BAND, [0.05, 0.05], [0.2, None])
    assert band("noise", [None], [1.0]) == band("noise", [0.0], [None]) == []


def test_layers_are_those_that_the_evidence_names():
    several = Finding("BN1", ERROR, "a", "is wrong", {"layers": ["a", "b", "a"], "layer": "c"})
    one = Finding("BN2", ERROR, "b", "is wrong", {"layer": "b"})
    none = Finding("BN3", ERROR, "the input", "is wrong")
    assert by_layer([several, one, none]) == {"a": [several], "b": [several, one]}
    whole = Finding("BN2", ERROR, "b", "is wrong", {"layer": ""})
    assert list(by_layer([whole])) == ["(the file itself)"]
