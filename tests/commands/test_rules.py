"""`bncli rules`: the catalogue, a family, one rule, and what is no rule."""

from __future__ import annotations

import pytest

from bncli.errors import ExitCode
from bncli.renderers.interface import RenderContext
from bncli.renderers.table import render
from bncli.report import Column, Report, Table
from bncli.rulebook import FAMILIES, RULES

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)


def test_the_catalogue_has_every_rule_in_order(run):
    result = run("rules", "-f", "json")
    assert result.code == ExitCode.OK
    rows = result.report["tables"]["rules"]
    assert [(row["code"], row["name"], row["severity"], row["summary"]) for row in rows] == [
        (rule.code, rule.name, rule.severity.value, rule.summary) for rule in RULES
    ]
    assert result.report["facts"]["rules"] == len(RULES)


@every_rule
def test_a_rule_is_explained_by_its_code_and_by_its_name(run, rule):
    report = run("rules", rule.code, "-f", "json").report
    assert report == run("rules", rule.name, "-f", "json").report
    assert report == run("rules", rule.code.lower(), "-f", "json").report
    texts = {row["aspect"]: row["text"] for row in report["tables"]["rule"]}
    assert list(texts) == [
        "summary",
        "symptom",
        "arithmetic",
        "certainty",
        "mend",
        "lookalike",
        "seen",
    ]
    assert all(texts.values())
    assert texts["mend"] == rule.hint
    for thread in rule.seen:
        assert thread in texts["seen"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(run, family):
    for spelling in (family, f"{family}xx", family.lower()):
        report = run("rules", spelling, "-f", "json").report
        codes = [row["code"] for row in report["tables"]["rules"]]
        assert codes == [rule.code for rule in RULES if rule.code.startswith(family)]
        assert codes


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("BN999", "bncli: there is no rule BN999; did you mean BN906 or BN905 or BN904?\n"),
        (
            "hard-to-fol",
            "bncli: there is no rule hard-to-fol; did you mean hard-to-fold?\n",
        ),
        ("@", "bncli: there is no rule @; bncli rules lists them.\n"),
    ],
)
def test_what_is_no_rule(run, wrong, sentence):
    assert tuple(run("rules", wrong)) == (ExitCode.ERROR, "", sentence)


@pytest.mark.parametrize(
    ("form", "suffix"), [("json", "json"), ("csv", "csv"), ("markdown", "md"), ("table", "txt")]
)
def test_goldens(run, golden, form, suffix):
    golden(f"rules.{suffix}", run("rules", "BN203", "-f", form, "--width", "80").stdout)


def test_the_catalogue_is_never_shortened_on_a_terminal():
    columns = (Column("code", "code"),)
    rows = [{"code": f"BN{n:03}"} for n in range(60)]

    def drawn(whole):
        table = Table("rules", "Rules", columns, rows, whole=whole)
        return render(Report("rules", {}, (table,)), RenderContext(ExitCode.OK, 80, terminal=True))

    assert "BN059" in drawn(whole=True)
    assert "more rows" not in drawn(whole=True)
    assert "36 more rows" in drawn(whole=False)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_prose_goes_on_in_the_next_line_and_stays_whole(run, width):
    for arguments in (("rules",), ("rules", "BN303")):
        text = run(*arguments, "--width", width).stdout
        assert max(map(len, text.splitlines())) <= width
        if width >= 80:
            assert text.count("summary") == 1  # in one table, beside the code
        words = text.split()
        rules = RULES if len(arguments) == 1 else [r for r in RULES if r.code == "BN303"]
        for rule in rules:
            missing = set(rule.summary.split()) - set(words)
            assert not missing
