"""`bncli rules`: the catalogue of findings, and one of them explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from bncli.arguments.completion import complete_codes
from bncli.arguments.options import argument
from bncli.report import Column, Report, Table

if TYPE_CHECKING:
    from bncli.report import Value
    from bncli.rulebook.interface import Rule

RULE_COLUMNS = (
    *Column.plain("code", "severity", "name"),
    Column("summary", "summary", wraps=True),
)
EXPLANATION_COLUMNS = (Column("aspect", "aspect"), Column("text", "text", wraps=True))


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

    What the rule sees, the arithmetic behind it, how sure it is, the mend, what looks like it and
    is something else, and where it was seen.
    """
    from bncli.rulebook.registry import RULES

    if code is None:
        return _catalogue(RULES, "Rules")
    wanted = code.strip().lower()
    for rule in RULES:
        if wanted in (rule.code.lower(), rule.name):
            return _explanation(rule)
    return _family(wanted, code)


def _catalogue(rules: tuple[Rule, ...], title: str) -> Report:
    """Some rules, one a row."""
    rows: list[dict[str, Value]] = [
        {
            "code": rule.code,
            "severity": rule.severity.value,
            "name": rule.name,
            "summary": rule.summary,
        }
        for rule in rules
    ]
    counts = (
        f"{sum(rule.severity.value == severity for rule in rules)} {severity}"
        for severity in ("error", "warning", "info")
    )
    return Report(
        command="rules",
        facts={"rules": len(rules)},
        tables=(Table("rules", title, RULE_COLUMNS, rows),),
        verdict=f"{len(rules)} rules: {', '.join(counts)}. bncli rules CODE explains one.",
    )


def _family(wanted: str, code: str) -> Report:
    """The rules of one hundred. Raises UsageError where there are none."""
    from bncli.errors import UsageError
    from bncli.loaders.names import listed, nearest
    from bncli.rulebook import FAMILIES
    from bncli.rulebook.registry import RULES

    family = wanted.upper().rstrip("X")
    if family in FAMILIES:
        members = tuple(rule for rule in RULES if rule.code.startswith(family))
        return _catalogue(members, f"{family}xx: {FAMILIES[family]}")
    names = [name for rule in RULES for name in (rule.code, rule.name)]
    near = nearest(names, wanted.upper()) or nearest(names, wanted)
    mend = f"did you mean {listed(near, ' or ')}?" if near else "bncli rules lists them."
    raise UsageError(f"there is no rule {code}; {mend}")


def _explanation(rule: Rule) -> Report:
    """One rule, an aspect a row."""
    aspects = {
        "summary": rule.summary,
        "symptom": rule.symptom,
        "arithmetic": rule.arithmetic,
        "certainty": rule.certainty,
        "mend": rule.hint,
        "lookalike": rule.lookalike,
        "seen": ", ".join(rule.seen) or "in no public thread that is known here",
    }
    rows: list[dict[str, Value]] = [
        {"aspect": aspect, "text": text} for aspect, text in aspects.items()
    ]
    title = f"{rule.code} {rule.name}"
    return Report(
        command="rules",
        facts={"code": rule.code, "name": rule.name, "severity": rule.severity.value},
        tables=(Table("rule", title, EXPLANATION_COLUMNS, rows),),
    )
