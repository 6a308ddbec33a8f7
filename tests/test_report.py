"""The order of findings, the exit code they ask for, long tables, and text that nothing obeys."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.errors import ExitCode
from bncli.report import (
    MOST_ROWS,
    Chart,
    Column,
    FailOn,
    Finding,
    Report,
    Severity,
    Suppressed,
    Table,
    Unread,
    count_findings,
    fails,
    harmless,
    in_order,
    printable,
)

NAMES = {"b.pt": ["stem", "layer2", "layer10"], "a.pt": ["layer2", "bn"]}
SEVERITIES = ["error", "warning", "info"]
PLACES = [
    Finding(code, severity, name, "It is so.", path=path)
    for severity in Severity
    for code in ("BN101", "BN206")
    for path, names in NAMES.items()
    for name in names
]
"""A finding of every severity and code at every place."""


def report(*findings, **more) -> Report:
    return Report("compute", {}, (), findings, **more)


def row_of(finding: Finding) -> tuple[str, str, str, str]:
    return finding.severity.value, finding.code, finding.path, finding.subject


def test_plain_columns_are_titled_as_their_keys():
    assert Column.plain("a", "b") == (Column("a", "a"), Column("b", "b"))
    (one,) = Column.plain("c", spec=".3g", foldable=True)
    assert one == Column("c", "c", ".3g", foldable=True)


@given(st.lists(st.sampled_from(PLACES), unique_by=row_of, max_size=len(PLACES)))
def test_findings_of_any_order_are_in_one(findings):
    expected = [
        (severity, code, path, name)
        for severity in ("error", "warning", "info")
        for code in ("BN101", "BN206")
        for path in ("b.pt", "a.pt")  # as the files were read, not as they are called
        for name in NAMES[path]
    ]
    found = [row_of(finding) for finding in report(*findings, names=NAMES).findings]
    assert found == [row for row in expected if row in set(map(row_of, findings))]


@given(st.permutations(PLACES))
def test_without_names_the_places_of_a_code_stay_as_they_came(findings):
    expected = [
        finding
        for severity in SEVERITIES
        for code in ("BN101", "BN206")
        for finding in findings
        if (finding.severity.value, finding.code) == (severity, code)
    ]
    assert list(in_order(findings)) == expected


def test_what_is_no_name_of_the_file_stands_before_its_layers_and_no_file_behind_all():
    def at(path, subject):
        return Finding("BN101", Severity.ERROR, subject, "It is so.", path=path)

    came = [at("c.pt", "x"), at("a.pt", "bn"), at("a.pt", "z"), at("b.pt", "stem"), at("a.pt", "y")]
    assert [(f.path, f.subject) for f in report(*came, names=NAMES).findings] == [
        ("b.pt", "stem"), ("a.pt", "z"), ("a.pt", "y"), ("a.pt", "bn"), ("c.pt", "x"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        PLACES[0],
        Suppressed(PLACES[0], "ignore"),
        Unread("a.pt", "There is none."),
        Column("n", "n"),
        Table("main", "Main", (), ()),
        Chart("loss", "Loss", (), {}),
        report(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_report_and_its_parts_are_values(value):
    for name in ("nothing", *type(value).__slots__):
        with pytest.raises((AttributeError, TypeError)):
            setattr(value, name, None)
    assert not hasattr(value, "__dict__")


def test_the_exit_code():
    warning = Finding("BN002", Severity.WARNING, "channel 0", "It is so.")
    assert report().exit_code() == ExitCode.OK == 0
    assert report(warning).exit_code() == ExitCode.OK
    assert report(warning).exit_code(FailOn.WARNING) == ExitCode.FINDING == 1
    nothing = report(warning, nothing_checked=True)
    assert nothing.exit_code(FailOn.WARNING) == nothing.exit_code(FailOn.NEVER) == 3
    unread = report(warning, nothing_checked=True, unread=(Unread("a.pt", "There is none."),))
    assert unread.exit_code(FailOn.NEVER) == 2


@pytest.mark.parametrize("least", FailOn)
@pytest.mark.parametrize("severity", Severity)
def test_what_fails(severity, least):
    which = {"error": ["error"], "warning": ["error", "warning"], "info": SEVERITIES, "never": []}
    finding = Finding("BN001", severity, "channel 0", "It is so.")
    assert fails(finding, least) == (severity.value in which[least.value])
    assert severity.rank == {"info": 0, "warning": 1, "error": 2}[severity.value]


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ((0, 0, 0), ""),
        ((1, 0, 0), "1 error"),
        ((2, 1, 3), "2 errors, 1 warning, 3 notes"),
        ((0, 2, 1), "2 warnings, 1 note"),
    ],
)
def test_findings_are_counted_in_words(numbers, sentence):
    findings = [
        Finding("BN001", Severity(severity), "channel 0", "It is so.")
        for severity, number in zip(SEVERITIES, numbers, strict=True)
        for _ in range(number)
    ]
    assert count_findings(findings) == sentence


def test_the_file_and_the_place_of_a_finding():
    own = Finding("BN203", Severity.ERROR, "bn", "It is so.", path="b.pt")
    none = Finding("BN001", Severity.ERROR, "channel 0", "It is so.")
    one, two = report(own, read=("a.pt",)), report(own, read=("b.pt",))
    piped = report(own, read=("-", "a.pt"))
    assert (piped.first_file, piped.file_of(none), piped.place_of(none)) == (
        "a.pt", "a.pt", "channel 0",
    )  # fmt: skip
    assert (one.file_of(own), one.file_of(none), one.first_file) == ("b.pt", "a.pt", "a.pt")
    assert report(read=("-",)).first_file == report().file_of(none) == ""
    assert (one.place_of(own), one.place_of(none)) == ("b.pt: bn", "a.pt: channel 0")
    assert report(none, read=("a.pt", "b.pt")).place_of(none) == "channel 0"  # of either
    several = replace(none, subject="1", places=("1", "4", "7"))
    assert one.place_of(several) == "a.pt: 1 and 2 more"
    assert one.place_of(replace(several, subject="3 tensors")) == "a.pt: 3 tensors"
    assert report(none, read=("-",)).place_of(none) == "channel 0"
    layers = report(own, read=("b.pt",), names={"b.pt": ["bn"]})
    assert layers.place_of(own) == "b.pt::bn"  # as it is typed
    whole = Finding("BN607", Severity.ERROR, "b.pt", "It has 2 layers.", path="b.pt")
    assert two.place_of(whole) == "b.pt"
    assert two.place_of(replace(whole, where="port.npy")) == "port.npy"


def test_the_word_of_each_exit_code():
    warned = Finding("BN002", Severity.WARNING, "a", "It is so.")
    noted = Finding("BN008", Severity.INFO, "a", "It is so.")
    code = ExitCode
    assert report().word_for(code.OK) == report(noted).word_for(code.OK) == "PASS"
    assert report(warned, noted).word_for(code.OK) == "WARN"
    assert report(warned).word_for(code.FINDING) == "FAIL"
    assert report().word_for(code.NOTHING) == "NOTHING"
    assert report(warned).word_for(code.ERROR) == "ERROR"
    assert report(judged=False).word_for(code.OK) == ""
    assert report(noted, judged=False).word_for(code.OK) == "PASS"


def test_a_findings_text_is_its_claim_and_what_supports_it():
    told = Finding("BN201", Severity.ERROR, "bn", "it is NaN", detail="The mean is finite.")
    assert told.text == "it is NaN. The mean is finite."
    assert replace(told, message="it is NaN.", detail="").text == "it is NaN."


def test_a_table_keeps_its_first_rows_and_counts_the_others():
    def table(rows, **more):
        return Table("main", "Main", (Column("n", "n"),), range(rows), **more)

    assert MOST_ROWS == 100_000
    whole = table(MOST_ROWS)
    assert whole.shortened() is whole
    cut = table(MOST_ROWS + 2, left_out=7).shortened()
    assert (cut.rows, cut.left_out) == (range(MOST_ROWS), 9)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bn.1 \N{SNOWMAN}", "bn.1 \N{SNOWMAN}"),
        ("a\x1bb\nc", r"a\x1bb\x0ac"),
        ("\u202egnp", r"\u202egnp"),
        ("\xff\U000e0001", "\xff" + r"\U000e0001"),
        ("##[error]x ##vso[x]", r"#\x23[error]x #\x23vso[x]"),
        ("## a [b]", "## a [b]"),
    ],
)
def test_printable_text_is_one_line_that_no_terminal_obeys(text, shown):
    assert printable(text) == shown == printable(shown)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("::error::x", r"\x3a:error::x"),
        ("  +++ x", r"  \x2b++ x"),
        ("~~~ x", r"\x7e~~ x"),
        ("a ::error::x", "a ::error::x"),
        ("---", "---"),
    ],
)
def test_a_harmless_line_begins_with_no_command(line, shown):
    assert harmless(line) == shown
