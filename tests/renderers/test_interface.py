"""What every renderer promises, on reports made by hand; no number here was computed by bncli."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.errors import UsageError
from bncli.renderers import SUFFIXES, Format, format_of, renderer
from bncli.report import Finding, Report, Severity, Table
from tests.renderers.reports import MARKUP, grouped, render, report, strict, unescaped

FINDINGS_ALONE = (Format.CONCISE, Format.GITHUB, Format.SARIF, Format.JUNIT)
"""Formats for programs that have no place for tables."""

PARSED = (Format.HTML.value,)
"""Formats that are long, and are tested by being parsed rather than by a golden."""

ROOM = {False: None, True: 1000}
"""A width at which nothing is wrapped: a picture has one of its own where none is given."""


@pytest.fixture(params=list(Format), ids=lambda form: form.value)
def form(request):
    return request.param


@pytest.fixture(
    params=[form for form in Format if form not in FINDINGS_ALONE], ids=lambda form: form.value
)
def table_form(request):
    """The formats that carry tables."""
    return request.param


def forgotten(formats, folder: Path, goldens: Path, readme: str) -> Iterator[str]:
    """What a renderer lacks, in words: `formats` are the list's, as (value, suffixes)."""
    files = {path.stem: path for path in folder.glob("*.py")}
    files |= {path.parent.name: path for path in folder.glob("*/__init__.py")}
    for name in ("__init__", "interface", "drawing"):
        files.pop(name, None)
    for name in sorted(files.keys() - {value for value, _ in formats}):
        yield f"bncli/renderers/{files[name].relative_to(folder)} is not in Format"
    taken: dict[str, str] = {}
    for value, suffixes in formats:
        if value not in files:
            yield f"Format has {value}, and there is no bncli/renderers/{value}.py"
        elif not re.search(r"^def render\(", files[value].read_text("utf-8"), re.MULTILINE):
            yield f"bncli/renderers/{value}.py has no function render"
        if not suffixes and value not in ("github", "concise"):  # which are read from a log
            yield f"Format gives {value} no suffix"
        for suffix in suffixes:
            if not re.fullmatch(r"\.[a-z0-9]+", suffix):
                yield f"the suffix {suffix} of {value} is not a dot and lower-case letters"
            if suffix in taken:
                yield f"the suffix {suffix} belongs to {taken[suffix]} and to {value}"
            taken[suffix] = value
            if suffix not in readme:
                yield f"README.md does not name the suffix {suffix}"
        golden = goldens / f"report{(*suffixes, f'.{value}')[0]}"
        if value not in PARSED and not golden.is_file():
            yield f"{value} has no golden: pytest tests/renderers/test_interface.py --update"
        if f"`{value}`" not in readme:
            yield f"README.md does not name the format {value}"


def test_no_piece_of_a_renderer_is_forgotten(repository):
    formats = [(form.value, form.suffixes) for form in Format]
    goldens = Path(__file__).parent / "goldens"
    readme = (repository / "README.md").read_text(encoding="utf-8").partition("## Scripts")[2]
    assert not list(forgotten(formats, repository / "bncli/renderers", goldens, readme))


def test_each_forgotten_piece_is_named(tmp_path):
    for name in ("__init__", "interface", "xml", "pdf", "tex"):
        (tmp_path / f"{name}.py").write_text("def render(report, context):\n" * (name != "pdf"))
    for name in ("drawing", "page", "html"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("def render(report, context):\n")
    (tmp_path / "report.tex").touch()
    formats = [
        ("tex", (".tex", ".Htm")), ("pdf", ()), ("yaml", (".tex",)), ("html", (".html",)),
    ]  # fmt: skip
    assert list(forgotten(formats, tmp_path, tmp_path, "`tex` `yaml` `html` .tex .html")) == [
        "bncli/renderers/page/__init__.py is not in Format",
        "bncli/renderers/xml.py is not in Format",
        "the suffix .Htm of tex is not a dot and lower-case letters",
        "README.md does not name the suffix .Htm",
        "bncli/renderers/pdf.py has no function render",
        "Format gives pdf no suffix",
        "pdf has no golden: pytest tests/renderers/test_interface.py --update",
        "README.md does not name the format pdf",
        "Format has yaml, and there is no bncli/renderers/yaml.py",
        "the suffix .tex belongs to tex and to yaml",
    ]


def test_a_suffix_in_any_case_picks_its_format(form):
    assert callable(renderer(form))
    for suffix in form.suffixes:
        assert format_of(f"a.b/report{suffix}") is form
        assert format_of(f"REPORT{suffix.upper()}") is form
    assert list(SUFFIXES)[-1] == ".txt"


@pytest.mark.parametrize("path", ["report", "report.pdf", "json", ".json", "a.json/b"])
def test_any_other_suffix_is_refused(path):
    with pytest.raises(UsageError, match=r"the suffix picks the format; use one of \.json"):
        format_of(path)


def test_the_text_ends_in_one_line_break(form, everything):
    text = render(form, everything)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_every_value_appears_in_full(table_form, everything):
    form = table_form
    text = render(form, everything, verbose=True)
    if form is Format.JSON:
        text = json.dumps(json.loads(text), ensure_ascii=False)
    for row in everything.tables[0].rows:
        if form in (Format.JSON, Format.CSV):
            assert repr(row["name"])[1:-1] in text
        else:
            assert row["name"] in unescaped(text)
        assert str(row["count"]) in text
    assert ("0.3333333333333333" if form in (Format.JSON, Format.CSV) else "0.333333") in text
    if form is not Format.CSV:  # which carries the main table alone
        assert "a [b].npy" in unescaped(text)


def test_every_finding_appears(form, everything):
    text = unescaped(render(form, everything, width=ROOM[form is Format.SVG]))
    if form is Format.CSV:
        return
    for finding in everything.findings:
        for part in (finding.code, finding.subject, finding.message.rstrip(".")):
            assert part in text
        word = finding.severity.value
        if form not in (Format.JSON, Format.JUNIT) and word == "info":
            word = "notice" if form is Format.GITHUB else "note"
        assert word in text
    if form is not Format.CONCISE:  # whose line is the finding alone
        assert "Fix it." in text
    if form is not Format.JUNIT:  # whose reader counts by itself
        styled = form in (Format.SVG, Format.HTML)  # which have each style by itself
        parts = everything.verdict.split("  ") if styled else [everything.verdict]
        assert all(part in text for part in parts)


def test_every_format_has_the_findings_in_one_order(form):
    came = [
        Finding(code, severity, f"place{number}.", "It is so.", path="a.pt")
        for number, (code, severity) in enumerate(
            (code, severity) for severity in Severity for code in ("BN206", "BN101")
        )
    ]
    text = render(form, report(findings=came, read=("a.pt",)))
    said = re.findall(r"place\d", text)  # a format may say a place twice, as in a title
    assert list(dict.fromkeys(said)) == [f"place{n}" for n in (5, 4, 3, 2, 1, 0)] or (
        form is Format.CSV and not said  # which has no findings
    )


def test_nothing_depends_on_a_width_that_is_not_known(form, everything):
    assert render(form, everything) == render(form, everything, width=None)


def test_a_long_table_is_whole_in_full(table_form):
    rows = [{"channel": c, "value": f"value-{c}-end"} for c in range(3000)]
    answer = (Table("answer", "", (), []),)
    for width in (None, 80, 30):
        given = report(rows, ("channel", "value"), answer=answer)
        text = render(table_form, given, width=width, verbose=True)
        if table_form is Format.HTML:  # and this says where the others are
            assert text.count("-end") == 2000
            assert "1000 more rows" in text
            continue
        assert text.count("-end") == 3000
        assert all(f"value-{c}-end" in text for c in range(0, 3000, 7))
        assert "more rows" not in text


def test_columns_that_do_not_fit_are_not_lost(table_form):
    keys = [f"column{c}" for c in range(60)]
    rows = [{key: f"cell-{r}-{key}-end" for key in keys} for r in range(3)]
    for width in (None, 200, 80, 45):
        text = render(table_form, report(rows, keys), width=width, verbose=True)
        for row in rows:
            for key, cell in row.items():
                assert key in text
                assert cell in text


def test_no_columns_no_rows_no_facts(form):
    for empty in (report(), report((), ("name", "value")), report([{}], ())):
        for width in (None, 80):
            assert render(form, empty, width=width).endswith("\n")


def test_markup_in_names_is_text(table_form, everything):
    for color in (False, True):
        text = render(table_form, everything, color=color, width=ROOM[table_form is Format.SVG])
        escapes = table_form in (Format.MARKDOWN, Format.SVG, Format.HTML)
        assert MARKUP in (unescaped(text) if escapes else text)


def test_a_line_break_in_a_name_does_not_break_a_row(form):
    given = report([{"name": "a\nb", "n": 1}], ("name", "n"), facts={"input": "c\nd"})
    plain = report([{"name": "a b", "n": 1}], ("name", "n"), facts={"input": "c d"})
    assert render(form, given).count("\n") == render(form, plain).count("\n")


def test_a_name_that_is_half_a_surrogate_can_be_written(form):
    given = report([{"name": "\udcff.npy"}], ("name",), facts={"input": "\udcff.npy"})
    text = render(form, given)
    if form is not Format.CSV:
        text.encode()


def test_color_is_the_tables_alone(form, everything):
    assert "\x1b" not in render(form, everything)
    colored = render(form, everything, color=True, width=100)
    assert ("\x1b" in colored) == (form is Format.TABLE)


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=5)), max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(values, values, values), max_size=5), st.sampled_from([None, 20, 80]))
def test_anything_can_be_rendered(rows, width):
    given_report = report(
        [dict(zip("abc", row, strict=True)) for row in rows],
        "abc",
        facts={"first": rows[0][0] if rows else None},
        findings=[Finding("BN001", Severity.INFO, str(row[1]), str(row[2])) for row in rows],
        verdict=str(rows),
    )
    for form in Format:
        text = render(form, given_report, width=width, verbose=bool(rows))
        assert text.endswith("\n")
        if form is Format.JSON:
            assert len(strict(text)["tables"]["main"]) == len(rows)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_floats_come_back_whole(numbers):
    given_report = report([{"x": number} for number in numbers], ("x",))
    from_json = [row["x"] for row in strict(render(Format.JSON, given_report))["tables"]["main"]]
    from_csv = list(csv.DictReader(io.StringIO(render(Format.CSV, given_report))))
    for number, in_json, in_csv in zip(numbers, from_json, from_csv, strict=True):
        back = float(in_csv["x"])
        assert (back == number and math.copysign(1, back) == math.copysign(1, number)) or (
            math.isnan(back) and math.isnan(number)
        )
        assert in_json == (number if math.isfinite(number) else None)


def test_groups_change_nothing_for_scripts(form):
    plain = grouped(3, 2)
    whole = Table("main", "Main", plain.tables[0].columns, plain.tables[0].rows, "A note.")
    if form not in (Format.TABLE, Format.SVG):
        ungrouped = Report("trace", {}, (whole,))
        assert render(form, plain, verbose=True) == render(form, ungrouped, verbose=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (True, "yes"), (False, "no"), (1 / 3, "0.333333"), (1e-5, "1e-05"),
        (math.nan, "nan"), (-math.inf, "-inf"), (17, "17"), ((2, 3), "(2, 3)"), ((), "()"),
        ((0.1, None), "(0.1, -)"), (19.714285714285715, "19.7143"), (2**70, str(2**70)),
    ],
)  # fmt: skip
def test_a_value_as_a_person_reads_it(value, text):
    for form in (Format.TABLE, Format.MARKDOWN):
        rendered = render(form, report([{"key": value}], ("key",)))
        assert text in [cell.strip() for line in rendered.splitlines() for cell in line.split("|")]


def test_a_column_has_its_own_format(everything):
    for form in (Format.TABLE, Format.MARKDOWN):
        assert "28.6%" in render(form, everything, verbose=True)
    assert strict(render(Format.JSON, everything))["tables"]["second"][0]["share"] == 0.286


def test_everything_is_told_only_where_it_is_wanted(form, everything):
    """-v changes what people see, and never what scripts read."""
    short, full = (render(form, everything, verbose=verbose) for verbose in (False, True))
    if form in (Format.TABLE, Format.MARKDOWN, Format.SVG):
        assert "A second table" not in short
        assert "A second table" in full
    elif form is not Format.GITHUB:
        assert short == full


def test_golden(form, fixed, golden):
    text = render(form, fixed)
    if form.value not in PARSED:
        golden(f"report{(*form.suffixes, f'.{form.value}')[0]}", text)
    if form in FINDINGS_ALONE:
        assert "1 NaN among 4 values per channel" in text
        return
    values = (1, 2, 3, 4)
    unbiased = sum((value - sum(values) / 4) ** 2 for value in values) / 3
    shown = repr(unbiased) if form in (Format.JSON, Format.CSV) else f"{unbiased:.3g}"
    assert shown in text
