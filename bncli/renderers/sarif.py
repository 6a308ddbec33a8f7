"""SARIF 2.1.0: one run, with the rules and their help, for code scanning and for archives.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html; sections are cited below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bncli import __version__
from bncli.errors import ExitCode
from bncli.gate.former import former_fingerprint
from bncli.gate.places import fingerprint
from bncli.renderers.json import text_of
from bncli.report import Severity, printable

if TYPE_CHECKING:
    from bncli.renderers.interface import RenderContext
    from bncli.report import Finding, Report, Suppressed
    from bncli.rulebook.interface import Rule

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
FINGERPRINT = "bncli/v2"
FORMER_FINGERPRINT = "bncli/v1"
"""Kept beside the new one, so that what a server has seen before is recognised."""


def render(report: Report, context: RenderContext) -> str:
    """The report as SARIF: what was suppressed is there with its suppression."""
    rules = _rules(report)
    indices = {rule["id"]: index for index, rule in enumerate(rules)}
    results = [_result(report, finding, indices) for finding in report.findings]
    results += [
        {**_result(report, item.finding, indices), "suppressions": [_suppression(item)]}
        for item in report.suppressed
    ]
    run = {
        "tool": {
            "driver": {
                "name": "bncli",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": rules,
            }
        },
        "columnKind": "unicodeCodePoints",
        "automationDetails": {"id": f"bncli/{report.command}/"},
        "invocations": [_invocation(report, context)],
        "results": results,
        "properties": {"verdict": report.verdict, "facts": report.facts},
    }
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return text_of(document)


def _rules(report: Report) -> list[dict[str, Any]]:
    """The rules of this report's findings (3.49); a viewer shows their help."""
    from bncli.rulebook.registry import RULES

    known = {rule.code: rule for rule in RULES}
    findings = [*report.findings, *(item.finding for item in report.suppressed)]
    first = {finding.code: finding for finding in reversed(findings)}
    return [_rule(known.get(code), first[code]) for code in sorted(first)]


def _rule(rule: Rule | None, finding: Finding) -> dict[str, Any]:
    """One rule; `finding` stands in for what a rule outside the catalogue does not say."""
    if rule is None:
        return {"id": finding.code, "shortDescription": {"text": finding.code}}
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.name.replace("-", " ")},
        "fullDescription": {"text": rule.summary},
        "help": {
            "text": "\n".join(f"{part}: {text}" for part, text in _help(rule)),
            "markdown": "\n\n".join(f"**{part}**: {_markdown(text)}" for part, text in _help(rule)),
        },
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
    }


def _help(rule: Rule) -> list[tuple[str, str]]:
    """What `bncli rules CODE` says of a rule, part by part."""
    parts = (
        ("Summary", rule.summary),
        ("Symptom", rule.symptom),
        ("Arithmetic", rule.arithmetic),
        ("How sure", rule.certainty),
        ("Fix", rule.hint),
        ("What looks like it", rule.lookalike),
        ("Seen in", ", ".join(rule.seen)),
    )
    return [(part, text) for part, text in parts if text]


def _markdown(text: str) -> str:
    """A sentence of a rule, in which the names of buffers hold no emphasis."""
    return text.replace("_", "\\_").replace("*", "\\*")


def _result(report: Report, finding: Finding, indices: dict[str, int]) -> dict[str, Any]:
    """One finding (3.27)."""
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": finding.subject}]}
    if path := report.file_of(finding):
        # A checkpoint has no lines, but code scanning shows nothing without one.
        location["physicalLocation"] = {
            "artifactLocation": {"uri": _uri(path)},
            "region": {"startLine": 1},
        }
    hint = f" {finding.hint}" if finding.hint else ""
    return {
        "ruleId": finding.code,
        "ruleIndex": indices[finding.code],
        "level": LEVELS[finding.severity],
        "message": {"text": printable(f"{finding.subject}: {finding.text}{hint}")},
        "locations": [location],
        "partialFingerprints": {
            FORMER_FINGERPRINT: former_fingerprint(finding, report),
            FINGERPRINT: fingerprint(finding, report),
        },
        "properties": {"evidence": finding.evidence},
    }


def _suppression(item: Suppressed) -> dict[str, str]:
    """Why a result does not count (3.35): it was said outside the file."""
    return {"kind": "external", "status": "accepted", "justification": item.by}


def _invocation(report: Report, context: RenderContext) -> dict[str, Any]:
    """How the run ended (3.20): files that could not be read are its notifications."""
    invocation: dict[str, Any] = {
        "executionSuccessful": context.exit_code in {ExitCode.OK, ExitCode.FINDING},
        "exitCode": int(context.exit_code),
    }
    notifications = [
        {
            "level": "error",
            "message": {"text": printable(f"{unread.path}: {unread.problem}")},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(unread.path)}}}],
        }
        for unread in report.unread
    ]
    if report.nothing_checked:
        message = printable(report.verdict) or "nothing was checked."
        notifications.append({"level": "warning", "message": {"text": message}})
    if notifications:
        invocation["toolExecutionNotifications"] = notifications
    return invocation


def _uri(path: str) -> str:
    """A path as a URI reference (3.4.3), relative where the path is."""
    slashes = path.replace("\\", "/") if ":" in path[1:3] else path
    encoded = quote(slashes, safe="/", errors="backslashreplace")
    return f"file://{encoded}" if slashes.startswith("/") else encoded
