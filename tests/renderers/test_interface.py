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
from rich.cells import cell_len

from bncli.errors import ExitCode, UsageError
from bncli.renderers import SUFFIXES, Format, format_of, renderer
from bncli.renderers.interface import RenderContext
from bncli.report import Chart, Column, Finding, Report, Severity, Table

NUMBERS = (
    0.1,
    1 / 3,
    -1e-300,
    5e-324,
    1.7976931348623157e308,
    19.714285714285715,
    -0.0,
    123456789.0,
)
MARKUP = "a[red]b[/red]|c*d_e`f<b>g</b>:smile:"
FINDINGS_ALONE = (Format.GITHUB, Format.SARIF, Format.JUNIT)
"""Formats for programs that have no place for tables."""


def report(rows=(), columns=(), *, facts=None, findings=(), verdict="", **more) -> Report:
    table = Table("main", "Main", tuple(Column(key, key) for key in columns), list(rows))
    return Report("compute", facts or {}, (table,), tuple(findings), verdict=verdict, **more)


def render(form: Format, given: Report, **context) -> str:
    code = given.exit_code()
    return renderer(form)(given, RenderContext(context.pop("exit_code", code), **context))


def strict(text: str):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def squeezed(text: str) -> str:
    """Without white space: what is left when lines are wrapped between words or inside them."""
    return "".join(text.split())


def unescaped(text: str) -> str:
    return text.replace("\\", "")


@pytest.fixture(params=list(Format), ids=lambda form: form.value)
def form(request):
    return request.param


@pytest.fixture(
    params=[form for form in Format if form not in FINDINGS_ALONE], ids=lambda form: form.value
)
def table_form(request):
    """The formats that carry tables."""
    return request.param


@pytest.fixture
def everything():
    """One of each kind of thing that a report can hold."""
    rows = [
        {
            "name": "layer1.bn",
            "value": 1 / 3,
            "count": 8,
            "ok": True,
            "index": [0, 1],
            "gone": None,
        },
        {
            "name": "ünïcode 雪",
            "value": math.nan,
            "count": 0,
            "ok": False,
            "index": [],
            "gone": None,
        },
        {"name": MARKUP, "value": math.inf, "count": -7, "ok": True, "index": [3], "gone": None},
        {"name": "", "value": -math.inf, "count": 2**63, "ok": False, "index": [1.5], "gone": None},
    ]
    columns = tuple(Column(key, key) for key in rows[0])
    second = Table(
        "second",
        "A second table",
        (Column("channel", "channel"), Column("share", "used", ".1%")),
        [{"channel": 0, "share": 0.286}],
        note="A note.",
    )
    findings = (
        Finding("BN001", Severity.ERROR, "channel 3", "2 NaN.", {"nan": [2, math.nan]}, "Mend it."),
        Finding("BN002", Severity.WARNING, "channels 0 and 1", "|mean|/std is 2048."),
        Finding("BN008", Severity.INFO, "every channel", "2 values each.", {"count": 2}),
    )
    facts = {"input": "a [b].npy", "shape": (4, 3), "eps": 1e-5, "unknown": None, "worst": math.inf}
    chart = Chart("loss", "Loss", [0.0, 1.0], {"a": [0.5, None], "b": [math.nan, 2.0]})
    return Report(
        "compute", facts, (Table("main", "The main table", columns, rows), second), findings,
        (chart,), "bncli and torch differ in 1 of 10 quantities. 1 error.",
    )  # fmt: skip


# ---------------------------------------------------------------------------- the registry


def forgotten(formats, folder: Path, goldens: Path, readme: str) -> Iterator[str]:
    """What a renderer lacks, in words: `formats` are the list's, as (value, suffixes)."""
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "interface"}
    for name in sorted(files - {value for value, _ in formats}):
        yield f"bncli/renderers/{name}.py is not in Format"
    taken: dict[str, str] = {}
    for value, suffixes in formats:
        if value not in files:
            yield f"Format has {value}, and there is no bncli/renderers/{value}.py"
        elif not re.search(
            r"^def render\(", (folder / f"{value}.py").read_text("utf-8"), re.MULTILINE
        ):
            yield f"bncli/renderers/{value}.py has no function render"
        if not suffixes and value != "github":  # which is read from a log, not from a file
            yield f"Format gives {value} no suffix"
        for suffix in suffixes:
            if not re.fullmatch(r"\.[a-z0-9]+", suffix):
                yield f"the suffix {suffix} of {value} is not a dot and lower-case letters"
            if suffix in taken:
                yield f"the suffix {suffix} belongs to {taken[suffix]} and to {value}"
            taken[suffix] = value
            if suffix not in readme:
                yield f"README.md does not name the suffix {suffix}"
        if not (goldens / f"report{(*suffixes, '.github')[0]}").is_file():
            yield f"{value} has no golden: pytest tests/renderers/test_interface.py --update"
        if f"`{value}`" not in readme:
            yield f"README.md does not name the format {value}"


def test_no_piece_of_a_renderer_is_forgotten(repository):
    formats = [(form.value, form.suffixes) for form in Format]
    goldens = Path(__file__).parent / "goldens"
    readme = (repository / "README.md").read_text(encoding="utf-8").partition("## Scripts")[2]
    assert not list(forgotten(formats, repository / "bncli/renderers", goldens, readme))


def test_each_forgotten_piece_is_named(tmp_path):
    for name in ("__init__", "interface", "xml", "pdf", "html"):
        (tmp_path / f"{name}.py").write_text("def render(report, context):\n" * (name != "pdf"))
    (tmp_path / "report.html").touch()
    formats = [("html", (".html", ".Htm")), ("pdf", ()), ("yaml", (".html",))]
    assert list(forgotten(formats, tmp_path, tmp_path, "`html` `yaml` .html")) == [
        "bncli/renderers/xml.py is not in Format",
        "the suffix .Htm of html is not a dot and lower-case letters",
        "README.md does not name the suffix .Htm",
        "bncli/renderers/pdf.py has no function render",
        "Format gives pdf no suffix",
        "pdf has no golden: pytest tests/renderers/test_interface.py --update",
        "README.md does not name the format pdf",
        "Format has yaml, and there is no bncli/renderers/yaml.py",
        "the suffix .html belongs to html and to yaml",
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


# ---------------------------------------------------------------------------- all of them


def test_the_text_ends_in_one_line_break(form, everything):
    text = render(form, everything)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_every_value_appears_off_a_terminal(table_form, everything):
    form = table_form
    text = render(form, everything)
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
    text = unescaped(render(form, everything))
    if form is Format.CSV:
        return
    for finding in everything.findings:
        for part in (finding.code, finding.subject, finding.message):
            assert part in text
        word = {"github": {"info": "notice"}, "sarif": {"info": "note"}}
        assert word.get(form.value, {}).get(finding.severity.value, finding.severity.value) in text
    assert "Mend it." in text
    if form is not Format.JUNIT:  # whose reader counts by itself
        assert everything.verdict in text


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


def test_a_long_table_is_whole_off_a_terminal(table_form):
    rows = [{"channel": c, "value": f"value-{c}-end"} for c in range(3000)]
    for width in (None, 80, 30):
        text = render(table_form, report(rows, ("channel", "value")), width=width)
        assert text.count("-end") == 3000
        assert all(f"value-{c}-end" in text for c in range(0, 3000, 7))
        assert "more rows" not in text


def test_columns_that_do_not_fit_are_not_lost(table_form):
    keys = [f"column{c}" for c in range(60)]
    rows = [{key: f"cell-{r}-{key}-end" for key in keys} for r in range(3)]
    for width in (None, 200, 80, 45):
        text = render(table_form, report(rows, keys), width=width)
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
        text = render(table_form, everything, color=color, terminal=color)
        assert MARKUP in (unescaped(text) if table_form is Format.MARKDOWN else text)


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
    colored = render(form, everything, color=True, terminal=True, width=100)
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
        text = render(form, given_report, width=width)
        assert text.endswith("\n")
        if form is Format.JSON:
            assert len(strict(text)["tables"]["main"]) == len(rows)


# ---------------------------------------------------------------------------- JSON and CSV


def test_json_is_strict_and_exact(everything):
    document = strict(render(Format.JSON, everything, exit_code=ExitCode.FINDING))
    assert list(document) == [
        "format_version", "command", "exit_code", "verdict", "facts", "tables", "charts",
        "findings", "suppressed", "unread",
    ]  # fmt: skip
    assert (document["format_version"], document["exit_code"]) == (1, 1)
    first, second, third, fourth = document["tables"]["main"]
    assert first == {
        "name": "layer1.bn", "value": 1 / 3, "count": 8, "ok": True, "index": [0, 1], "gone": None,
    }  # fmt: skip
    assert (second["value"], third["value"], fourth["value"]) == (None, None, None)
    assert third["name"] == MARKUP
    assert fourth["count"] == 2**63
    assert document["facts"] == {
        "input": "a [b].npy", "shape": [4, 3], "eps": 1e-5, "unknown": None, "worst": None,
    }  # fmt: skip
    assert document["charts"] == {
        "loss": {"x": [0.0, 1.0], "series": {"a": [0.5, None], "b": [None, 2.0]}}
    }
    assert document["findings"][0] == {
        "code": "BN001", "severity": "error", "path": None, "subject": "channel 3",
        "message": "2 NaN.",
        "evidence": {"nan": [2, None]}, "hint": "Mend it.",
    }  # fmt: skip


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


def test_csv_carries_the_first_table_alone(everything):
    text = render(Format.CSV, everything)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == [column.key for column in everything.tables[0].columns]
    assert len(rows) == 4
    assert [row["value"] for row in rows] == ["0.3333333333333333", "nan", "inf", "-inf"]
    assert [row["ok"] for row in rows] == ["true", "false", "true", "false"]
    assert [json.loads(row["index"]) for row in rows] == [[0, 1], [], [3], [1.5]]
    assert {row["gone"] for row in rows} == {""}


# ---------------------------------------------------------------------------- table


@pytest.mark.parametrize("width", [20, 40, 60, 80, 132])
def test_no_line_is_wider_than_asked(everything, width):
    text = render(Format.TABLE, everything, width=width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    # In the sentences and facts, lines may break, but nothing is lost.
    for finding in everything.findings:
        assert squeezed(finding.subject + ":" + finding.message) in squeezed(text)
    assert squeezed(everything.verdict) in squeezed(text)
    assert squeezed("input a [b].npy shape (4, 3) eps 1e-05 worst inf") in squeezed(text)


@pytest.mark.parametrize("width", [20, 33, 80])
def test_a_cell_wider_than_the_console_goes_on_in_the_next_line(width):
    long = "".join(f"{n:03d}." for n in range(60))
    rows = [{"name": long, "x": 1}, {"name": "short", "x": 2}]
    lines = render(Format.TABLE, report(rows, ("name", "x")), width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    start = next(i for i, line in enumerate(lines) if line.startswith("000."))
    end = next(i for i, line in enumerate(lines) if line.startswith("short"))
    assert "".join(line.split(" ")[0] for line in lines[start:end]) == long


def test_wide_characters_count_twice():
    rows = [{"name": "雪" * 10, "a": "雪" * 10, "b": "雪" * 10} for _ in range(2)]
    for width in range(20, 81, 5):
        text = render(Format.TABLE, report(rows, ("name", "a", "b")), width=width)
        assert max(map(cell_len, text.splitlines())) <= width
        assert text.count("雪") >= 60


def test_every_piece_of_a_wide_table_begins_with_the_first_column():
    columns = ("channel", *(f"column{c}" for c in range(12)))
    rows = [{key: 1000 * r + c for c, key in enumerate(columns)} for r in (7, 8)]
    text = render(Format.TABLE, report(rows, columns), width=40)
    headers = [line for line in text.splitlines() if "column" in line]
    assert len(headers) > 2
    assert all(line.split()[0] == "channel" for line in headers)
    assert [key for line in headers for key in line.split()[1:]] == list(columns[1:])
    assert sum(line.split()[:1] == ["7000"] for line in text.splitlines()) == len(headers)


def test_a_long_table_is_shortened_on_a_terminal_and_says_so():
    rows = [{"channel": c} for c in range(100)]
    text = render(Format.TABLE, report(rows, ("channel",)), terminal=True, width=80)
    shown = [line for line in text.splitlines() if line.strip().isdecimal()]
    assert [int(line) for line in shown] == list(range(len(shown)))
    assert f"{100 - len(shown)} more rows" in text
    assert len(shown) < 100


def grouped(groups: int, each: int, **more) -> Report:
    columns = (Column("channel", "channel"), Column("name", "name"), Column("value", "value"))
    rows = [
        {"channel": c, "name": f"c{c}r{r}", "value": 100 * c + r}
        for c in range(groups)
        for r in range(each)
    ]
    table = Table("main", "Main", columns, rows, "A note.", group=("channel",), **more)
    return Report("trace", {}, (table,))


@pytest.mark.parametrize("width", [None, 40])
def test_groups_are_tables_of_their_own(width):
    text = render(Format.TABLE, grouped(3, 2), width=width)
    lines = [line.split() for line in text.splitlines() if line.strip()]
    headings = [line for line in lines if line[0] == "Main,"]
    assert headings == [["Main,", "channel", str(c)] for c in range(3)]
    assert [line for line in lines if line[0] == "name"] == [["name", "value"]] * 3
    for c in range(3):
        place = lines.index(["Main,", "channel", str(c)])
        assert lines[place + 3 : place + 5] == [[f"c{c}r{r}", str(100 * c + r)] for r in (0, 1)]
    assert text.count("A note.") == 1
    assert text.index("A note.") > text.index("c2r1")


def test_groups_change_nothing_for_scripts(form):
    plain = grouped(3, 2)
    whole = Table("main", "Main", plain.tables[0].columns, plain.tables[0].rows, "A note.")
    if form is not Format.TABLE:
        assert render(form, plain) == render(form, Report("trace", {}, (whole,)))


def test_many_groups_are_shortened_on_a_terminal_and_say_so():
    text = render(Format.TABLE, grouped(50, 2), terminal=True, width=80)
    shown = text.count("Main, channel")
    assert shown < 50
    assert f"... {50 - shown} more such tables" in text
    assert text.count("A note.") == 1
    assert render(Format.TABLE, grouped(50, 2), width=80).count("Main, channel") == 50


def test_no_rows_in_no_group():
    assert "Main" in render(Format.TABLE, grouped(0, 0))


def test_a_long_table_with_ends_shows_its_first_and_its_last_rows():
    text = render(Format.TABLE, grouped(1, 100, ends=True), terminal=True, width=80)
    found = [line.split()[0] for line in text.splitlines() if line.startswith(("c0r", "..."))]
    gap = found.index("...")
    assert found[:gap] == [f"c0r{r}" for r in range(gap)]
    last = len(found) - gap - 2  # the line below the table begins with dots too
    assert found[gap + 1 : -1] == [f"c0r{r}" for r in range(100 - last, 100)]
    assert gap == last > 5
    assert f"... {100 - gap - last} more rows" in text
    whole = render(Format.TABLE, grouped(1, 100, ends=True), width=80)
    assert all(f"c0r{r} " in whole for r in range(100))


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
        assert "28.6%" in render(form, everything)
    assert strict(render(Format.JSON, everything))["tables"]["second"][0]["share"] == 0.286


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0%"),
        (0.1234, "12.3%"),
        (42.5, "4250.0%"),
        (7.53e14, "7.53e+16%"),
        (math.inf, "inf"),
    ],
)
def test_a_large_percentage_is_short(value, text):
    table = Table("main", "Main", (Column("key", "key", ".1%"),), [{"key": value}])
    assert text in render(Format.TABLE, Report("compute", {}, (table,))).split()


def test_facts_that_are_not_known_are_left_out_of_the_table_only(everything):
    assert "unknown" not in render(Format.TABLE, everything)
    assert "| unknown | - |" in render(Format.MARKDOWN, everything)


def test_a_fact_that_is_a_long_list_is_shortened_on_a_terminal_alone():
    given_report = report(facts={"path": [f"{n}.pt" for n in range(500)], "shape": (1, 2, 3, 4, 5)})
    text = render(Format.TABLE, given_report, terminal=True, width=200)
    assert "path (0.pt, 1.pt, 2.pt, 3.pt, 4.pt, 5.pt and 494 more)  shape (1, 2, 3, 4, 5)" in text
    assert "499.pt" in render(Format.TABLE, given_report)


# ---------------------------------------------------------------------------- Markdown


def test_markdown_tables_have_as_many_cells_as_columns(everything):
    for block in render(Format.MARKDOWN, everything).split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


# ---------------------------------------------------------------------------- goldens


@pytest.fixture
def fixed():
    """A report whose every number can be checked by hand: values 1, 2, 3, 4 and 1, 1, 1, 5."""
    rows = [
        {"channel": 0, "mean": 2.5, "var": 1.25, "unbiased_var": 5 / 3, "index": (0, 1)},
        {"channel": 1, "mean": 2.0, "var": 3.0, "unbiased_var": 4.0, "index": ()},
        {"channel": 2, "mean": math.nan, "var": math.inf, "unbiased_var": None, "index": (12, 3)},
    ]
    table = Table(
        "channels",
        "Channels",
        (
            Column("channel", "channel"), Column("mean", "mean"), Column("var", "var"),
            Column("unbiased_var", "unbiased_var", ".3g"), Column("index", "index"),
        ),
        rows,
        note="Made by hand.",
    )  # fmt: skip
    findings = (
        Finding(
            "BN001", Severity.ERROR, "channel 2", "1 NaN among 4 values a channel.",
            {"channels": [2], "nan": [1]}, "Look at what produced the input.",
        ),
        Finding("BN008", Severity.INFO, "every channel", "4 values each."),
    )  # fmt: skip
    facts = {"input": "x[0].npy", "shape": (4, 3), "eps": 1e-5, "affine": True, "seed": None}
    return Report(
        "compute", facts, (table,), findings, verdict="1 error, 1 note.", read=("x[0].npy",)
    )


def test_golden(form, fixed, golden):
    text = render(form, fixed)
    golden(f"report{(*form.suffixes, '.github')[0]}", text)
    if form in FINDINGS_ALONE:
        assert "1 NaN among 4 values a channel" in text
        return
    values = (1, 2, 3, 4)
    unbiased = sum((value - sum(values) / 4) ** 2 for value in values) / 3
    shown = repr(unbiased) if form in (Format.JSON, Format.CSV) else f"{unbiased:.3g}"
    assert shown in text


def test_golden_of_a_narrow_table(fixed, golden):
    text = render(Format.TABLE, fixed, width=40)
    golden("report-40.txt", text)
    assert f"{(1 + 1 + 1 + 5) / 4:g}" in text.splitlines()[7].split()
