"""JUnit's XML, read with Python's own parser."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.errors import ExitCode
from bncli.renderers.interface import RenderContext
from bncli.renderers.junit import render
from bncli.report import FailOn, Suppressed, Unread
from tests.findings import finding, of_layers, report


def shown(given_report, fail_on=FailOn.ERROR) -> ET.Element:
    code = given_report.exit_code(fail_on)
    text = render(given_report, RenderContext(code, fail_on=fail_on))
    return ET.fromstring(text.encode(errors="strict"))


def outcomes(root) -> dict[str, str]:
    """Each case's name, and what is in it."""
    return {case.get("name"): case[0].tag if len(case) else "" for case in root.iter("testcase")}


def test_a_suite_a_file_and_a_case_a_layer():
    root = shown(of_layers("a", "b", "c", faulty=["b"], path="net.pt"))
    (suite,) = root
    assert (root.tag, suite.tag, suite.get("name")) == ("testsuites", "testsuite", "net.pt")
    assert outcomes(root) == {"BN001 b": "failure", "a": "", "c": ""}
    case = next(root.iter("testcase"))
    assert (case.get("classname"), case.get("file")) == ("bncli.hand-made", "net.pt")
    assert (case[0].get("type"), case[0].get("message"), case[0].text) == (
        "error", "a fact.", "a fact.",
    )  # fmt: skip


def test_several_files():
    given_report = report(
        finding(path="b.pt"), read=("a.pt", "b.pt"), checked={"a.pt": ["x"], "b.pt": ["here", "y"]},
        unread=(Unread("c.pt", "it is cut short."),),
    )  # fmt: skip
    root = shown(given_report)
    names = {suite.get("name"): [c.get("name") for c in suite] for suite in root}
    assert names == {"c.pt": ["file"], "b.pt": ["BN001 here", "y"], "a.pt": ["x"]}
    assert [suite.get("tests") for suite in root] == ["1", "2", "1"]
    error = next(root.iter("error"))
    assert error.get("message") == "it is cut short."


severities = st.lists(st.sampled_from(["error", "warning", "info"]), max_size=5)


@given(severities, severities, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(FailOn))
def test_the_file_is_red_where_the_exit_code_is_not_0(live, quiet, unread, nothing, checked, on):
    """And its numbers are those of its cases."""
    given_report = report(
        *(finding(subject=str(n), severity=severity) for n, severity in enumerate(live)),
        suppressed=tuple(Suppressed(finding(severity=s), "ignore") for s in quiet),
        unread=(Unread("b.pt", "no."),) * unread,
        nothing_checked=nothing,
        checked={"": ["0", "9"]} if checked else {},
    )
    root = shown(given_report, on)
    red = int(root.get("failures")) + int(root.get("errors"))
    assert (red > 0) == (given_report.exit_code(on) is not ExitCode.OK)
    for element in (root, *root):
        cases = list(element.iter("testcase"))
        assert int(element.get("tests")) == len(cases) > 0
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.get(count)) == sum(case.find(tag) is not None for case in cases)
    assert int(root.get("skipped")) == len(quiet)


@pytest.mark.parametrize(
    "bad", ["\0", "\x1b[31m", "\ud800", "\ufffe", "\x85", "]]>", "<&\"'>", "\u2028"]
)
def test_what_xml_cannot_hold_is_replaced(bad):
    name = f"a{bad}b"
    root = shown(report(finding(subject=name, message=name, path=name, hint=name)))
    case = next(root.iter("testcase"))
    assert case.get("name").startswith("BN001 a")
    assert case.get("name").endswith("b")
    if bad.isprintable():
        assert case.get("name") == f"BN001 {name}"
        assert case[0].text == f"{name}. {name}"


@given(st.text(max_size=20))
def test_any_text_is_well_formed(text):
    shown(report(finding(subject=text, message=text, path=text), verdict=text, read=(text,)))
