"""`bncli rules`: the catalogue of findings, and one of them explained."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

from bncli.arguments.completion import complete_codes
from bncli.arguments.options import argument
from bncli.report import Column, Report, Severity, Table
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from bncli.report import Value
    from bncli.rulebook.interface import Rule

RULE_COLUMNS = (
    *Column.plain("code", "severity", "name"),
    Column("summary", "summary", wraps=True),
)
CATALOGUE_COLUMNS = (
    *Column.plain("code", "severity"),
    Column("rule", "rule", wraps=True),
)
EXPLANATION_COLUMNS = (Column("aspect", "aspect"), Column("text", "text", wraps=True))
PROSE_COLUMNS = (Column("aspect", ""), Column("text", "", wraps=True))
ASPECTS = {
    "symptom": "symptom",
    "arithmetic": "arithmetic",
    "certainty": "how sure",
    "fix": "fix",
    "lookalike": "confused with",
    "seen": "reported in",
}
"""The aspects of a rule that follow its claim, and what people read for them."""

FAILS = {
    "error": "an error, which makes the exit code 1",
    "warning": "a warning, which makes the exit code 1 only with --fail-on warning",
    "info": "a note, which makes the exit code 1 only with --fail-on info",
}


def rules(
    code: Annotated[
        str | None,
        argument(
            "[CODE]",
            "A rule to explain, such as BN203 or its name; or a family, such as BN2.",
            complete_codes,
        ),
    ] = None,
) -> Report:
    """List every rule that findings come from, or explain one.

    An explanation has the symptom, the arithmetic, how sure the rule is, the fix, what looks like
    it and is something else, and where it was reported.
    """
    from bncli.rulebook.registry import RULES

    if code is None:
        return _catalogue(RULES, "")
    wanted = code.strip().lower()
    for rule in RULES:
        if wanted in (rule.code.lower(), rule.name):
            return _explanation(rule)
    return _family(wanted, code)


def _catalogue(rules: tuple[Rule, ...], family: str) -> Report:
    """Some rules, one a row; `family` says what they have in common."""
    from bncli.rulebook import FAMILIES

    rows: list[dict[str, Value]] = [
        {
            "code": rule.code,
            "severity": rule.severity.value,
            "name": rule.name,
            "summary": rule.summary,
        }
        for rule in rules
    ]
    shown: list[dict[str, Value]] = []
    for begin, members in groupby(rules, lambda rule: rule.code[:3]):
        if not family:
            about = FAMILIES[begin]
            shown.append({"code": f"{begin}xx", "severity": "", "rule": about.upper()})
        shown += [
            {
                "code": rule.code,
                "severity": rule.severity.label,
                "rule": f"{rule.name}: {rule.summary}",
            }
            for rule in members
        ]
    severities = [rule.severity for rule in rules]
    counts = [
        counted(severities.count(severity), severity.label)
        for severity in (Severity.ERROR, Severity.WARNING, Severity.INFO)
        if severity in severities
    ]
    number = counted(len(rules), "rule")
    return Report(
        command="rules",
        facts={"rules": len(rules)},
        tables=(Table("rules", family or "Rules", RULE_COLUMNS, rows),),
        subject=(family,) if family else (),
        answer=(Table("", "", CATALOGUE_COLUMNS, shown),),
        verdict=f"{number}: {', '.join(counts)}; bncli rules CODE explains one",
        judged=False,
    )


def _family(wanted: str, code: str) -> Report:
    """The rules whose codes begin so. Raises UsageError where there are none."""
    from bncli.errors import UsageError
    from bncli.loaders.names import listed, nearest
    from bncli.rulebook import FAMILIES
    from bncli.rulebook.registry import RULES

    begin = wanted.upper().rstrip("X")
    members = tuple(rule for rule in RULES if rule.code.startswith(begin))
    if begin == "BN":
        return _catalogue(members, "")
    if begin.startswith("BN") and members:
        return _catalogue(members, f"{begin:x<5}: {FAMILIES[begin[:3]]}")
    names = [name for rule in RULES for name in (rule.code, rule.name)]
    near = [] if re.fullmatch(r"BN\d+", begin) else nearest(names, begin) or nearest(names, wanted)
    instead = f"did you mean {listed(near, ' or ')}?" if near else "bncli rules lists them."
    raise UsageError(f"there is no rule {code}; {instead}")


def _explanation(rule: Rule) -> Report:
    """One rule, an aspect a row."""
    aspects = {
        "summary": rule.summary,
        "symptom": rule.symptom,
        "arithmetic": rule.arithmetic,
        "certainty": rule.certainty,
        "fix": rule.hint,
        "lookalike": rule.lookalike,
        "seen": ", ".join(rule.seen) or "no public thread is known",
    }
    rows: list[dict[str, Value]] = [
        {"aspect": aspect, "text": text} for aspect, text in aspects.items()
    ]
    prose = [{"aspect": said, "text": aspects[aspect]} for aspect, said in ASPECTS.items()]
    title = f"{rule.code} {rule.name}"
    return Report(
        command="rules",
        facts={"code": rule.code, "name": rule.name, "severity": rule.severity.value},
        tables=(Table("rule", title, EXPLANATION_COLUMNS, rows),),
        subject=(title, f"{rule.how_bad}: {rule.summary} ({rule.how_sure})"),
        answer=(Table("", "", PROSE_COLUMNS, prose),),
        verdict=f"{rule.code} is {FAILS[rule.severity.value]}; --ignore {rule.code} leaves it out",
        judged=False,
    )
