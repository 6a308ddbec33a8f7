"""GitHub's annotations, read back as GitHub's runner reads them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.renderers.github import render
from bncli.renderers.interface import RenderContext
from bncli.report import Unread, printable
from tests.findings import finding, of_layers, report

COMMAND = re.compile(r"::(?P<name>\w+)(?: (?P<properties>[^:]*(?:%3A[^:]*)*))?::(?P<message>.*)")


def read(text: str) -> list[tuple[str, dict[str, str], str]]:
    """The commands of a log: the name, the properties and the message."""
    commands = []
    for line in text.split("\n"):
        if not line.strip().startswith("::"):
            assert "##[" not in line
            continue
        match = COMMAND.fullmatch(line)
        assert match, line
        properties = dict(pair.split("=", 1) for pair in match["properties"].split(","))
        decoded = {key: decode(value, inside=True) for key, value in properties.items()}
        commands.append((match["name"], decoded, decode(match["message"])))
    return commands


def decode(text: str, *, inside: bool = False) -> str:
    escapes = {"%0D": "\r", "%0A": "\n"} | ({"%3A": ":", "%2C": ","} if inside else {})
    for escape, character in escapes.items():
        text = text.replace(escape, character)
    return text.replace("%25", "%")


def shown(given_report) -> str:
    return render(given_report, RenderContext(given_report.exit_code()))


def test_each_severity_has_its_command_and_the_worst_come_first():
    found = [finding(severity=severity) for severity in ("info", "error", "warning")]
    assert [name for name, _, _ in read(shown(report(*found)))] == ["error", "warning", "notice"]


def test_a_finding_names_its_file_and_rule():
    (command,) = read(shown(of_layers("a.bn", faulty=["a.bn"], path="models/a.pt")))
    assert command == (
        "error",
        {"file": "models/a.pt", "title": "BN001 a.bn"},
        "a fact (certain)\nmodels/a.pt::a.bn",
    )
    (command,) = read(shown(report(finding(hint="Fix it."), read=("-",))))
    assert command == ("error", {"title": "BN001 here"}, "a fact (certain)\nhere\nFix it.")


def test_one_annotation_for_each_rule_and_file():
    """GitHub shows ten: fifty layers of one cause must not hide the other rules."""
    found = [finding(subject=f"{n}", path=path) for path in ("a.pt", "b.pt") for n in range(50)]
    found.append(finding("BN002", "other", path="a.pt"))
    commands = read(shown(report(*found, read=("a.pt", "b.pt"))))
    assert [(each["file"], each["title"]) for _, each, _ in commands] == [
        ("a.pt", "BN001 50 places"), ("b.pt", "BN001 50 places"), ("a.pt", "BN002 other"),
    ]  # fmt: skip
    assert commands[0][2].split("\n")[1] == "0, 1, 2, 3, 4, 5 and 44 more"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("100%", "100%25"),
        ("a,b", "a%2Cb"),
        ("a:b", "a%3Ab"),
        ("C:\\x,y%", "C%3A\\x%2Cy%25"),
        ("%0A", "%250A"),
        ("::error::x", "%3A%3Aerror%3A%3Ax"),
    ],
)
def test_escapes_in_properties(text, escaped):
    assert f"file={escaped},title=" in shown(report(finding(), read=(text,)))


def test_escapes_in_messages():
    text = shown(report(finding(message="50%, a:b\r\nc")))
    assert text.startswith("::error file=net.pt,title=BN001 here::50%25, a:b")
    assert "\r" not in text
    assert text.count("\n") == 2


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_anything_comes_back(path, subject, message):
    """No text, whatever is in it, starts a command of its own or leaves its place."""
    given_report = report(
        finding(subject=subject, message=message, path=path, hint=path), verdict=message,
        read=(path,),
    )  # fmt: skip
    text = shown(given_report)
    (command,) = read(text)
    name, properties, said = command
    assert name == "error"
    assert properties == {
        key: value
        for key, value in (("file", printable(path)), ("title", f"BN001 {printable(subject)}"))
        if value
    }
    lines = [f"{message.rstrip('.')} (certain)", given_report.place_of(given_report.findings[0])]
    lines = [line for line in lines if line != path] + [path] * bool(path)
    assert said.split("\n") == [printable(line) for line in lines]
    assert len(text.split("\n")) == 3


def test_what_was_not_read_or_not_there_is_an_error():
    unread = report(unread=(Unread("b.pt", "it is cut short."),), read=())
    assert read(shown(unread)) == [
        ("error", {"file": "b.pt", "title": "bncli hand-made"}, "it is cut short.")
    ]
    nothing = report(nothing_checked=True, verdict="No BatchNorm layer.")
    assert read(shown(nothing)) == [("error", {"title": "bncli hand-made"}, "No BatchNorm layer.")]


def test_the_verdict_is_the_last_line_and_no_command():
    text = shown(report(verdict="##[error]2 layers\n::error::x"))
    assert text == "bncli hand-made: #\\x23[error]2 layers\\x0a::error::x\n"
