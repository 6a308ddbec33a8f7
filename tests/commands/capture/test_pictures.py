"""What a page shows of a capture: the ranges of the table, and every finding at its layers."""

from __future__ import annotations

import pytest

from bncli.commands.capture.pictures import pictures
from bncli.pictures import Kind
from bncli.report import Finding, Severity
from tests.commands.capture.conftest import SMALL

HOSTILE = "</svg><script>alert(1)</script>$x_1$\n\x1b[31m\u202e"
KINDS = ("mean", "running_mean", "var", "running_var")


def row(name, **numbers):
    usual = {f"{kind}_{end}": at for kind in KINDS for at, end in enumerate(("min", "max"), 1)}
    return {"name": name} | usual | numbers


def ranges(panel):
    return {each.label: each for each in panel.series if each.kind is Kind.RANGE}


def test_the_numbers_are_those_of_the_table(pictured, small):
    report, shown = pictured("capture", *SMALL)
    rows = report["tables"]["layers"]
    assert len(rows) == 3
    for panel, kind in zip(shown["statistics"].panels, ("var", "mean"), strict=True):
        assert panel.x.names == tuple(each["name"] for each in rows)
        assert panel.y.log is (kind == "var")
        for label, key in (("of the data", kind), ("stored in the model", f"running_{kind}")):
            bars = ranges(panel)[label]
            assert list(bars.y) == [each[f"{key}_min"] for each in rows]
            assert list(bars.upper) == [each[f"{key}_max"] for each in rows]
    assert shown["statistics"].text.startswith("Over 3 layers, the variance of the data goes from")


def test_nothing_is_drawn_of_nothing():
    assert pictures((), rows=()) == ()
    nothing = {f"{kind}_{end}": None for kind in KINDS for end in ("min", "max")}
    assert pictures((), rows=[row("a", **nothing)]) == ()


def test_findings_are_marked_at_their_layers():
    finding = Finding("BN806", Severity.WARNING, "b", "is odd", {"layers": ["b"]})
    (shown,) = pictures([finding], rows=[row("a"), row("b")])
    (marks,) = [
        each for panel in shown.panels for each in panel.series if each.severity is not None
    ]
    assert (marks.x, marks.names) == ((1,), ("BN806",))
    assert shown.text.endswith("findings: BN806 in b.")


def test_layers_without_running_statistics_leave_a_gap():
    (shown,) = pictures((), rows=[row("a"), row("b", running_var_min=None, running_var_max=None)])
    assert list(ranges(shown.panels[0])["stored in the model"].y) == [1.0, None]
    assert "Over 1 of 2 layers, running_var goes from 1 in a to 2 in a." in shown.text


@pytest.mark.parametrize("name", [HOSTILE, "", "$"])
def test_hostile_names_are_data(name):
    (shown,) = pictures((), rows=[row(name)])
    assert shown.panels[0].x.names == (name,)
