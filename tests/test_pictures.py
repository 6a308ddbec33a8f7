"""Pictures are made when they are wanted, of the findings that count."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from bncli.pictures import Axis, Kind, Panel, Picture, Series, pictures_of
from bncli.report import Finding, Report, Severity

FOUND = tuple(Finding(f"BN{at}", Severity.ERROR, "a", "is wrong") for at in (1, 2))


def picture(text: str = "") -> Picture:
    line = Series("y", Kind.LINE, (0, 1), (2.0, None))
    return Picture("p", "P", (Panel("", Axis("x"), Axis("y"), (line,)),), text)


def made(findings=(), text="") -> tuple[Picture, ...]:
    return (picture(text + " ".join(finding.code for finding in findings)),)


@pytest.mark.parametrize(
    "pictures", [(picture("a"),), partial(made, text="a"), lambda: made((), "a")]
)
def test_pictures_that_mark_no_findings(pictures):
    report = Report("c", {}, (), FOUND, pictures=pictures)
    assert pictures_of(report) == (picture("a"),)


def test_those_findings_are_marked_that_count():
    report = Report("c", {}, (), FOUND, pictures=partial(made, findings=FOUND, text="a "))
    assert pictures_of(report) == report.pictures() == (picture("a BN1 BN2"),)
    assert pictures_of(replace(report, findings=FOUND[1:])) == (picture("a BN2"),)
    assert pictures_of(replace(report, findings=())) == (picture("a "),)
