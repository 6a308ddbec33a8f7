"""A name is data: no format lets it command a terminal, a CI server or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.errors import ExitCode
from bncli.process.streams import say
from bncli.renderers import Format, renderer
from bncli.renderers.interface import RenderContext
from bncli.report import Chart, Column, Finding, Report, Severity, Suppressed, Table, Unread

CONTROLS = (
    "\x00\x07\x08\t\n\x0b\r\x1b\x7f\x85\x9b\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069"
)
COMMANDS = (
    "::error::x", "::set-env name=A::b", "::add-mask::a", "  ::error::x", "##[error]x",
    "##vso[task.complete]", "##vso[task.setvariable variable=a]b", "##teamcity[buildStop]",
    "###[group]x", "+++ x", "--- x", "section_start:1:x\r\x1b[0Kx", "a\n::error::x",
    "a\u2028::error::x",
)  # fmt: skip
FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "＝1")
NAMES = (*COMMANDS, *FORMULAS, f"a{CONTROLS}b", "a;=1", 'a",=1', "'=1", "\u202egnp.exe")
OBEYED = re.compile(r"^\s*(::|\+\+\+ |--- |~~~ )|##\w*\[", re.MULTILINE)


def full(name: str) -> Report:
    """A report that has the name wherever one can stand."""
    rows = [{"name": name, "n": -1.5, "list": [name, 1]}, {"name": "bn", "n": 2, "list": []}]
    columns = (Column("name", "name"), Column("n", "n"), Column("list", "list"))
    findings = tuple(
        Finding("BN201", severity, name, f"{name} is NaN.", {"layer": name}, name, name)
        for severity in Severity
    )
    return Report(
        "compute",
        {"input": name, "inputs": [name, name]},
        (
            Table("main", name, columns, rows, name),
            Table("more", "More", columns, rows, group=("name",)),
        ),
        findings,
        (Chart("c", name, [0.0, 1.0], {name: [0.5, 1.0]}),),
        verdict=name,
        read=(name, "b.pt"),
        unread=(Unread(name, name),),
        checked={name: [name], "b.pt": [name]},
        suppressed=(Suppressed(findings[0], "ignore"),),
    )


def shown(form: Format, given: Report, width=None) -> str:
    return renderer(form)(given, RenderContext(ExitCode.ERROR, width))


def odd(text: str) -> set[str]:
    return {character for character in text if not character.isprintable()}


def said_of_odd(form: Format, text: str) -> str:
    return (
        f"{form.value} writes {', '.join(map(ascii, sorted(odd(text) - {chr(10)})))}: no format "
        "lets a control character but the end of a line through; one that separates by another "
        "(such as a tab) needs a rule of its own here, and must escape it in every name"
    )


def test_an_odd_character_is_named():
    said = said_of_odd(SimpleNamespace(value="tsv"), "a\tb\n")
    assert said.startswith("tsv writes '\\t': ")


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_format_lets_a_name_command(form, name):
    for width in (None, 20, 33, 80) if form is not Format.HTML else (None,):  # it has no width
        text = shown(form, full(name), width)
        assert odd(text) <= {"\n"}, said_of_odd(form, text)
        if form is Format.GITHUB:  # whose own lines are commands, with the name inside of one
            text = "".join(re.sub("^::(error|warning|notice) ", "", f"{line}\n")
                           for line in text.splitlines())  # fmt: skip
        assert not OBEYED.search(text), OBEYED.search(text)


@settings(deadline=None, max_examples=60)
@given(name=st.text(st.characters(), max_size=12), width=st.sampled_from([None, 40, 20]))
def test_no_name_at_all_does(name, width):
    for form in (Format.HTML,) if width == 20 else (f for f in Format if f is not Format.HTML):
        text = shown(form, full(name), width)
        assert odd(text) <= {"\n"}, said_of_odd(form, text)
        assert len(text.splitlines()) == len(text.split("\n")) - 1
        if form in (Format.TABLE, Format.CSV, Format.MARKDOWN, Format.HTML):
            assert not OBEYED.search(text)


@pytest.mark.parametrize("form", [form for form in Format if form is not Format.JSON])
def test_two_names_stay_two(form):
    texts = {shown(form, full(f"bn{character}")) for character in CONTROLS}
    assert len(texts) == len(CONTROLS)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_json_gives_the_name_back(name):
    document = json.loads(shown(Format.JSON, full(name)))
    assert document["facts"]["input"] == name
    assert document["tables"]["main"][0]["name"] == name
    assert document["findings"][0]["subject"] == name
    sarif = json.loads(shown(Format.SARIF, full(name)))
    place = sarif["runs"][0]["results"][0]["locations"][0]["logicalLocations"][0]
    assert place["fullyQualifiedName"] == name


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_xml_can_be_read(name):
    ET.fromstring(shown(Format.JUNIT, full(name)).encode("utf-8"))


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("name", FORMULAS, ids=ascii)
@pytest.mark.parametrize("separator", [",", ";", "|"])
def test_a_cell_begins_no_formula_whatever_the_spreadsheet_takes_for_its_end(name, separator):
    for given_name in (name, f"a{separator}{name}"):
        text = shown(Format.CSV, full(given_name))
        cells = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        for cell in (cell for row in cells for cell in row):
            assert cell[:1] not in set("=+@\t\r＝") or separator != ",", cell
        assert rows_of(text)[1][0].lstrip("'")[:1] in {"a", *(c for c in name[:1]), "\\"}
        assert rows_of(text)[1][0][:1] in {"'", "a", "\\"}


@pytest.mark.parametrize("number", ["-1", "+1", "-1.5e-7", "-0", "1", "0.5"])
def test_numbers_stay_numbers(number):
    rows = [{"text": number, "float": float(number), "list": [-1, float(number)]}]
    columns = tuple(Column(key, key) for key in rows[0])
    given_report = Report("compute", {}, (Table("main", "Main", columns, rows),))
    assert rows_of(shown(Format.CSV, given_report))[1] == [
        number, repr(float(number)), json.dumps([-1, float(number)]),
    ]  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20),
            st.integers(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_printable_names_come_back_from_csv(pairs):
    rows = [{"name": name, "n": n} for name, n in pairs]
    columns = (Column("name", "name"), Column("n", "n"))
    text = shown(Format.CSV, Report("compute", {}, (Table("main", "Main", columns, rows),)))
    read = [[name[name[:1] == "'" :], n] for name, n in rows_of(text)[1:]]
    assert read == [[re.sub(r"##(?=\w*\[)", r"#\\x23", name), str(n)] for name, n in pairs]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_sentence_on_standard_error_is_one_harmless_line(capsys, name):
    say(f"{name} is missing {name}")
    line = capsys.readouterr().err
    assert line.startswith("bncli: ")
    assert line[:-1].isprintable()
    assert not OBEYED.search(line)
