"""The last line of a report: a word, what was found, and what else there is to say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.gate.verdict import count_suppressed, with_verdict
from bncli.report import Suppressed, Unread
from bncli.rulebook.comparison import DIFFERS
from tests.findings import finding, report

WARNING = {"code": "BN002", "severity": "warning"}


@pytest.mark.parametrize(
    ("given", "said", "verdict"),
    [
        (report(verdict="3 layers."), [], "PASS  3 layers"),
        (report(verdict="3 rules", judged=False), [], "3 rules"),
        (report(scope="3 layers"), [], "PASS  no findings in 3 layers"),
        (
            report(finding(), scope="3 layers", verdict="saved"),
            ["rewritten"],
            "FAIL  1 error in 3 layers (bncli rules BN001 explains it); saved; rewritten",
        ),
        (
            report(finding(**WARNING), finding("BN003", severity="info"), judged=False),
            [],
            "WARN  1 warning, 1 note (see bncli rules BN002)",
        ),
        (report(nothing_checked=True, verdict="there is none"), [], "NOTHING  there is none"),
        (
            replace(report(verdict="one"), unread=(Unread("x", "gone"),)),
            [],
            "ERROR  one; 1 file could not be read",
        ),
    ],
)
def test_the_word_the_counts_and_the_rest(given, said, verdict):
    assert with_verdict(given, given.exit_code(), said).verdict == verdict
    assert with_verdict(given, given.exit_code(), said).word == given.word_for(given.exit_code())


def test_what_differs_and_does_not_count_comes_first():
    gone = Suppressed(finding(DIFFERS.code), "ignore")
    given = replace(report(verdict="one differs"), suppressed=(gone,))
    said = count_suppressed(given)
    assert said == f"not counted: 1 ignored ({DIFFERS.code})"
    assert with_verdict(given, given.exit_code(), [said]).verdict == f"PASS  {said}; one differs"


def test_few_codes_are_named():
    gone = tuple(Suppressed(finding(f"BN00{n}"), "baseline") for n in range(1, 5))
    assert count_suppressed(replace(report(), suppressed=gone[:3])) == (
        "not counted: 3 in the baseline (BN001, BN002, BN003)"
    )
    assert count_suppressed(replace(report(), suppressed=gone)) == "not counted: 4 in the baseline"
