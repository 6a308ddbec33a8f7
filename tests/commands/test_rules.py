"""`bncli rules`: the catalogue, a family, one rule, and what is no rule."""

from __future__ import annotations

import re

import pytest

from bncli.errors import ExitCode
from bncli.report import Severity
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
        "fix",
        "lookalike",
        "seen",
    ]
    assert all(texts.values())
    assert texts["fix"] == rule.hint
    for thread in rule.seen:
        assert thread in texts["seen"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(run, family):
    for spelling in (family, f"{family}xx", family.lower()):
        report = run("rules", spelling, "-f", "json").report
        codes = [row["code"] for row in report["tables"]["rules"]]
        assert codes == [rule.code for rule in RULES if rule.code.startswith(family)]
        assert codes


def test_the_beginning_of_codes_lists_those_rules(run):
    for spelling in ("BN70", "bn70x"):
        result = run("rules", spelling)
        codes = re.findall(r"^BN\d{3}\b", result.stdout, re.MULTILINE)
        assert codes == [rule.code for rule in RULES if rule.code.startswith("BN70")]
        assert result.stdout.startswith(f"BN70x: {FAMILIES['BN7']}\n")
    assert run("rules", "BN").stdout == run("rules").stdout


def test_the_catalogue_has_a_heading_for_each_family(run):
    shown = re.findall(r"^BN\d(?:\d\d|xx)", run("rules").stdout, re.MULTILINE)
    assert [each for each in shown if each.endswith("xx")] == [f"{each}xx" for each in FAMILIES]
    heading = ""
    for each in shown:
        heading = each if each.endswith("xx") else heading
        assert each[:3] == heading[:3]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("BN999", "bncli: there is no rule BN999; bncli rules lists them.\n"),
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


def shown(run, *arguments, width=80):
    """What a terminal of this width shows of `bncli rules`, line by line."""
    result = run("rules", *arguments, "--width", width)
    assert (result.code, result.stderr) == (ExitCode.OK, "")
    return result.stdout.splitlines()


def test_the_catalogue_is_one_table_with_a_line_for_each_rule(run):
    lines = shown(run)
    assert lines[0].split() == ["code", "severity", "rule"]
    starts = [line.split()[:3] for line in lines if re.match(r"BN\d{3} ", line)]
    assert starts == [[rule.code, rule.severity.label, f"{rule.name}:"] for rule in RULES]
    errors = sum(rule.severity is Severity.ERROR for rule in RULES)
    assert lines[-1].startswith(f"{len(RULES)} rules: {errors} errors, ")
    assert not lines[-1].startswith(("PASS", "WARN", "FAIL"))


@every_rule
def test_an_explanation_is_prose_in_the_order_in_which_one_asks(run, rule):
    lines = shown(run, rule.code)
    assert lines[0] == f"{rule.code} {rule.name}"
    assert lines[1].startswith(f"{rule.how_bad}: {rule.summary[:40]}")
    assert f"({rule.how_sure})" in " ".join(lines[1:4])
    labels = [
        re.split(r"  +", line)[0] for line in lines if re.match(r"[a-z]+( [a-z]+)*  +\S", line)
    ]
    assert labels == ["symptom", "arithmetic", "how sure", "fix", "confused with", "reported in"]
    assert len(lines) <= 40
    words = " ".join(lines).split()
    for text in (rule.symptom, rule.arithmetic, rule.certainty, rule.hint, rule.lookalike):
        assert not set(text.split()) - set(words)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("BN203", "BN203 is an error, which makes the exit code 1; --ignore BN203 leaves it out"),
        ("BN703", "only with --fail-on warning; --ignore BN703 leaves it out"),
        ("BN403", "only with --fail-on info; --ignore BN403 leaves it out"),
    ],
)
def test_the_last_line_says_what_the_rule_does_to_the_exit_code(run, code, said):
    assert " ".join(run("rules", code).stdout.split()).endswith(said)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("arguments", [(), ("BN3",), ("BN303",)], ids=" ".join)
def test_prose_goes_on_in_the_next_line_and_stays_whole(run, width, arguments):
    lines = shown(run, *arguments, width=width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    code = "".join(arguments)
    for rule in RULES:
        if rule.code.startswith(code):
            assert not set(rule.summary.split()) - set(words)


def test_v_shows_the_table_of_the_machine_formats(run):
    text = run("rules", "-v", "--width", 300).stdout
    for rule in RULES:
        assert re.search(
            rf"^{rule.code} .* {rule.name} .*{re.escape(rule.summary)}$", text, re.MULTILINE
        )
