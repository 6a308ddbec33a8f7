"""What a page shows of new statistics: the numbers of the table, and all findings."""

from __future__ import annotations

import pytest

from bncli.commands.recalibrate.pictures import pictures
from bncli.pictures import Kind
from bncli.report import Finding, Severity

FACTS = {"gap_before": 2.0, "gap_after": 0.5}
HOSTILE = "</svg><script>alert(1)</script>$x_1$\n\x1b[31m\u202e"


def row(name, **numbers):
    usual = {"z_max": 0.4, "standard_error": 0.02, "var_ratio_min": 0.5, "var_ratio_max": 2.0}
    return {"name": name} | usual | numbers


def of_kind(panel, kind):
    (one,) = [each for each in panel.series if each.kind is kind and each.severity is None]
    return one


def test_the_numbers_are_those_of_the_table(pictured, spoilt):
    report, shown = pictured("recalibrate", "net.py:Net", "--checkpoint=spoilt.pth", "--data=*.pt")
    rows, facts = report["tables"]["layers"], report["facts"]
    means, ratios = shown["moves"].panels
    assert means.x.names == ratios.x.names == tuple(each["name"] for each in rows)
    assert list(of_kind(means, Kind.POINTS).y) == [each["z_max"] for each in rows]
    assert list(of_kind(means, Kind.BAND).upper) == [each["standard_error"] for each in rows]
    bars = of_kind(ratios, Kind.RANGE)
    assert list(bars.y) == [each["var_ratio_min"] for each in rows]
    assert list(bars.upper) == [each["var_ratio_max"] for each in rows]
    gaps = (facts["gap_before"], facts["gap_after"])
    assert "goes from {:.3g} to {:.3g}.".format(*gaps) in shown["moves"].text
    assert min(bars.y) == pytest.approx(1 / 25, rel=0.2)
    assert " (bn2) to " in shown["moves"].text


def test_nothing_is_drawn_of_nothing():
    assert pictures((), rows=(), facts=FACTS) == ()
    unknown = row(
        "a", **dict.fromkeys(("z_max", "standard_error", "var_ratio_min", "var_ratio_max"))
    )
    assert pictures((), rows=[unknown], facts=FACTS) == ()


def test_findings_are_marked_at_their_layers():
    findings = [
        Finding("BN811", Severity.WARNING, "a", "is odd", {"layers": ["a", "b"]}),
        Finding("BN820", Severity.ERROR, "the model", "is no better"),
    ]
    (shown,) = pictures(findings, rows=[row("a"), row("b"), row("c")], facts=FACTS)
    (marks,) = [each for each in shown.panels[0].series if each.severity is not None]
    assert (marks.x, marks.names) == ((0, 1), ("BN811", "BN811"))
    assert shown.text.endswith("findings: BN811 in 2 layers.")


def test_what_is_not_known_is_not_said():
    (shown,) = pictures((), rows=[row("a", z_max=None)], facts={**FACTS, "gap_after": None})
    assert [panel.title for panel in shown.panels] == [
        "Move of the means",
        "New variance over the old one",
    ]
    assert shown.text == "The variances become 0.5 to 2 times as large in a."


@pytest.mark.parametrize("name", [HOSTILE, "", "$"])
def test_hostile_names_are_data(name):
    (shown,) = pictures((), rows=[row(name)], facts=FACTS)
    assert shown.panels[0].x.names == (name,)
