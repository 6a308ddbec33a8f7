"""The last line of a report: a word, what was found, and what else there is to say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.errors import ExitCode, UsageError
from bncli.files.reading import reading
from bncli.gate.verdict import Gate, count_left_out, count_suppressed, with_verdict
from bncli.report import MOST_ROWS, FailOn, Suppressed, Unread
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


# ---------------------------------------------------------------------------- what counts


def counted(given, fail_on="error", select=None, ignore=None, baseline=None, *, update=False):
    with reading():
        gate = Gate(FailOn(fail_on), select, ignore, baseline, update)
        gate.begin()
        return gate.counted(given)


def test_what_is_ignored_fails_nothing():
    given = report(finding("BN001", "a"), finding("BN008", "b", severity="info"))
    made, code = counted(given)
    assert (code, made.word) == (ExitCode.FINDING, "FAIL")
    made, code = counted(given, ignore=["BN001"])
    assert (code, made.word) == (ExitCode.OK, "PASS")
    assert [item.finding.code for item in made.suppressed] == ["BN001"]
    made, code = counted(given, "info", select=["BN008"])
    assert code is ExitCode.FINDING
    assert [each.code for each in made.findings] == ["BN008"]


def test_what_the_baseline_knows_fails_nothing(folder):
    given = report(finding("BN001", "a"))
    _, code = counted(given, baseline="known.json", update=True)
    assert code is ExitCode.OK
    made, code = counted(given, baseline="known.json")
    assert (code, made.findings) == (ExitCode.OK, ())
    _, code = counted(report(finding("BN001", "b")), baseline="known.json")
    assert code is ExitCode.FINDING


def test_a_baseline_to_update_needs_a_name():
    with pytest.raises(UsageError, match="say which file with --baseline FILE"):
        counted(report(), update=True)


def test_a_wrong_code_is_refused_before_anything_else():
    with pytest.raises(UsageError, match="--select BN777"):
        Gate(FailOn.ERROR, ["BN777"], None, None, update_baseline=False)


def test_long_tables_are_cut_and_it_is_said():
    given = report()
    rows = [{"name": "a"}] * (MOST_ROWS + 2)
    made, _ = counted(replace(given, tables=(replace(given.tables[0], rows=rows),)))
    assert len(made.tables[0].rows) == MOST_ROWS
    assert count_left_out(made.tables[0]) == "the table layers holds 100000 of 100002 rows"
    assert count_left_out(made.tables[0]) in made.verdict


def test_the_answer_is_made_of_the_findings_that_count():
    given = report(finding("BN001", "a"), finding("BN002", "b"))
    seen = []

    def answer(made, fail_on):
        seen.append(([each.code for each in made.findings], fail_on))
        return made.tables

    made, _ = counted(replace(given, answer=answer), "warning", ignore=["BN002"])
    assert seen == [(["BN001"], FailOn.WARNING)]
    assert made.answer == made.tables


def test_notes_of_the_files_are_remarks():
    with reading() as call:
        call.notes["it was truncated"] = None
        made, _ = Gate(FailOn.ERROR, None, None, None, update_baseline=False).counted(report())
    assert made.remarks == ("it was truncated",)
    assert made.facts["notes"] == ["it was truncated"]
